#!/bin/sh
# check_ptxas.sh BUILD_DIR: what ptxas says of every kernel, instance and architecture, against
# ptxas.txt. Fails on a spill, a stack frame, a kernel without a row, and on any other number than
# the row's: better ones are written down too. Last it prints the rows as they should be.
set -u
table=$(dirname "$0")/ptxas.txt
cat "$1"/cuda/*.log | awk -v table="$table" '
    BEGIN {
        while ((getline line < table) > 0)
            if (line !~ /^#/ && split(line, row, " ") >= 3)
                expected[row[1]] = row[2] " " row[3]
    }
    /Compiling entry function/ {
        split($0, quoted, "\047")
        mangled = quoted[2]
        arch = quoted[4]
        # _Z16layernorm_kernelI6__halfLi6EE...: the number is the length of the name, Li6E an argument
        match(mangled, /[0-9]+/)
        length_of_name = substr(mangled, RSTART, RLENGTH)
        name = substr(mangled, RSTART + RLENGTH, length_of_name)
        rest = substr(mangled, RSTART + RLENGTH + length_of_name)
        if (match(rest, /Li[0-9]+E/))
            name = name "/" substr(rest, RSTART + 2, RLENGTH - 3)
    }
    /bytes stack frame/ {
        if ($1 + 0 > 0 || $5 + 0 > 0 || $9 + 0 > 0)
            wrong(name " on " arch ": " $0)
    }
    /ptxas info.*: Used/ {
        count++
        match($0, /Used [0-9]+/)
        used = substr($0, RSTART + 5, RLENGTH - 5) + 0
        if (used > registers[name] + 0)
            registers[name] = used
        bytes = match($0, /[0-9]+ bytes smem/) ? substr($0, RSTART, RLENGTH) + 0 : 0
        if (bytes > shared[name] + 0)
            shared[name] = bytes
    }
    function wrong(text) { print text; failed = 1 }
    END {
        for (name in registers) {
            found = registers[name] " " shared[name] + 0
            if (found != expected[name])
                wrong(name ": registers and shared memory " found ", in the table " \
                      (name in expected ? expected[name] : "no row"))
        }
        for (name in expected)
            if (!(name in registers))
                wrong(name " was not compiled")
        for (name in registers)
            printf "%-24s %-10d %d\n", name, registers[name], shared[name] | "sort"
        close("sort")
        print count + 0, "kernels looked at"
        exit failed || !count
    }'
