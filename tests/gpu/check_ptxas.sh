#!/bin/sh
# check_ptxas.sh BUILD_DIR: what ptxas says of every kernel and architecture, against ptxas.txt.
set -u
table=$(dirname "$0")/ptxas.txt
cat "$1"/cuda/*.log | awk -v table="$table" '
    BEGIN {
        while ((getline line < table) > 0)
            if (line !~ /^#/ && split(line, row, " ") == 4) {
                registers[row[1]] = row[2]
                shared[row[1]] = row[3]
            }
    }
    /Compiling entry function/ {
        split($0, quoted, "\047")
        mangled = quoted[2]
        arch = quoted[4]
        # _Z16layernorm_kernelI...: the number is the length of the name
        match(mangled, /[0-9]+/)
        name = substr(mangled, RSTART + RLENGTH, substr(mangled, RSTART, RLENGTH))
        if (!(name in registers))
            wrong(name " has no row in " table)
    }
    /bytes stack frame/ {
        if ($1 + 0 > 0 || $5 + 0 > 0 || $9 + 0 > 0)
            wrong(name " on " arch ": " $0)
    }
    /ptxas info.*: Used/ {
        seen[name] = 1
        count++
        match($0, /Used [0-9]+/)
        used = substr($0, RSTART + 5, RLENGTH - 5) + 0
        if (used > most[name])
            most[name] = used
        if (used > registers[name])
            wrong(name " on " arch " uses " used " registers, more than " registers[name])
        if (match($0, /[0-9]+ bytes smem/) && substr($0, RSTART, RLENGTH) + 0 > shared[name])
            wrong(name " on " arch " uses " substr($0, RSTART, RLENGTH))
    }
    function wrong(text) { print text; failed = 1 }
    END {
        for (name in registers) {
            printf "%-24s %3d of %3d registers\n", name, most[name], registers[name]
            if (!seen[name])
                wrong(name " was not compiled")
        }
        print count + 0, "kernels looked at"
        exit failed || !count
    }'
