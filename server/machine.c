// Control groups are trees of folders, each with its own limits; the tightest between ours and the
// root counts. Version 2 is one tree, version 1 has one for each controller, and both can be there.
// /proc/self/mountinfo says where a tree is mounted, and from which of its folders on;
// /proc/self/cgroup says in which folder we are. cgroups(7), proc(5).

#include "machine.h"
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_BYTES = 4096 };

enum tree { TREE_V2, TREE_V1_CPU, TREE_V1_MEMORY };

// The first line of ROOT/FOLDER/NAME.
static bool read_line(const char *root, const char *folder, const char *name, char *line, int size)
{
    char path[3 * PATH_BYTES];
    snprintf(path, sizeof path, "%s%s/%s", root, folder, name);
    FILE *file = fopen(path, "re");
    bool found = file && fgets(line, size, file);
    if (file)
        fclose(file);
    return found;
}

// The whole number above 0 at the start of *text, which goes past it.
static bool take_number(char **text, int64_t *value)
{
    char *end;
    *value = strtoll(*text, &end, 10);
    bool whole = end != *text && (*end == '\0' || *end == ' ' || *end == '\n');
    *text = end;
    return whole && *value > 0;
}

static void note_quota(struct machine *machine, int64_t quota_us, int64_t period_us)
{
    double quota = (double)quota_us / (double)period_us;
    if (machine->quota <= 0.0 || quota < machine->quota)
        machine->quota = quota;
}

// Version 1 says "no limit" with a number that no machine has.
static void note_memory(struct machine *machine, char *line)
{
    int64_t bytes;
    if (take_number(&line, &bytes) && bytes < machine->memory_bytes) {
        machine->memory_bytes = bytes;
        machine->memory_limited = true;
    }
}

static void read_folder(struct machine *machine, enum tree tree, const char *root,
                        const char *folder)
{
    char line[128], second[128], *at = line, *other = second;
    int64_t quota_us, period_us;
    if (tree == TREE_V2 && read_line(root, folder, "cpu.max", line, sizeof line) &&
        take_number(&at, &quota_us) && take_number(&at, &period_us))
        note_quota(machine, quota_us, period_us);
    if (tree == TREE_V1_CPU && read_line(root, folder, "cpu.cfs_quota_us", line, sizeof line) &&
        read_line(root, folder, "cpu.cfs_period_us", second, sizeof second) &&
        take_number(&at, &quota_us) && take_number(&other, &period_us))
        note_quota(machine, quota_us, period_us);
    if (tree == TREE_V2 && read_line(root, folder, "memory.max", line, sizeof line))
        note_memory(machine, line);
    if (tree == TREE_V1_MEMORY &&
        read_line(root, folder, "memory.limit_in_bytes", line, sizeof line))
        note_memory(machine, line);
}

// "cpu" in "rw,cpu,cpuacct"
static bool lists(const char *list, size_t length, const char *word)
{
    for (const char *at = list, *end = list + length; at < end;) {
        size_t size = strcspn(at, ",:\n");
        if (size == strlen(word) && memcmp(at, word, size) == 0)
            return true;
        at += size + 1;
    }
    return false;
}

// Our folder of the tree, from /proc/self/cgroup: "0::/a/b", "4:cpu,cpuacct:/a/b". "/" if unknown.
static void find_folder(const char *root, enum tree tree, char *folder)
{
    char path[2 * PATH_BYTES], *line = NULL;
    size_t capacity = 0;
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *file = fopen(path, "re");
    strcpy(folder, "/");
    while (file && getline(&line, &capacity, file) > 0) {
        const char *controllers = strchr(line, ':');
        const char *name = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!name)
            continue;
        size_t length = (size_t)(name - controllers - 1);
        if (tree == TREE_V2
                ? length == 0
                : lists(controllers + 1, length, tree == TREE_V1_CPU ? "cpu" : "memory"))
            snprintf(folder, PATH_BYTES, "%.*s", (int)strcspn(name + 1, "\n"), name + 1);
    }
    free(line);
    if (file)
        fclose(file);
}

// From our folder up to where the tree is mounted. `top` is the tree's folder that is seen there: a
// container without a namespace of its own has the host's names, and sees its own folder alone.
static void climb(struct machine *machine, enum tree tree, const char *root, const char *mount,
                  const char *top)
{
    char ours[PATH_BYTES], folder[2 * PATH_BYTES];
    find_folder(root, tree, ours);
    size_t above = strcmp(top, "/") == 0 ? 0 : strlen(top);
    bool within = strncmp(ours, top, above) == 0 && (ours[above] == '/' || ours[above] == '\0') &&
                  !strstr(ours, "/..");
    size_t end = strlen(mount);
    snprintf(folder, sizeof folder, "%s%s", mount, within ? ours + above : "");
    for (char *slash; strlen(folder) > end && (slash = strrchr(folder, '/')); *slash = '\0')
        read_folder(machine, tree, root, folder);
    folder[end] = '\0';
    read_folder(machine, tree, root, folder);
}

// mountinfo writes blanks and the like as "\040".
static void unescape(char *text)
{
    char *to = text;
    for (const char *from = text; *from; to++) {
        unsigned code;
        if (*from == '\\' && sscanf(from + 1, "%3o", &code) == 1) {
            *to = (char)code;
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = '\0';
}

// One line of mountinfo: "31 23 0:28 TOP MOUNT rw,relatime ... - TYPE SOURCE OPTIONS".
static bool read_mount(struct machine *machine, const char *root, const char *line)
{
    char top[PATH_BYTES], mount[PATH_BYTES], type[16], options[256];
    const char *rest = strstr(line, " - ");
    if (!rest || sscanf(line, "%*s %*s %*s %4095s %4095s", top, mount) != 2 ||
        sscanf(rest, " - %15s %*s %255s", type, options) != 2)
        return false;
    unescape(top);
    unescape(mount);
    if (strcmp(type, "cgroup2") == 0)
        climb(machine, TREE_V2, root, mount, top);
    else if (strcmp(type, "cgroup") != 0)
        return false;
    if (strcmp(type, "cgroup") == 0 && lists(options, strlen(options), "cpu"))
        climb(machine, TREE_V1_CPU, root, mount, top);
    if (strcmp(type, "cgroup") == 0 && lists(options, strlen(options), "memory"))
        climb(machine, TREE_V1_MEMORY, root, mount, top);
    return true;
}

static void read_mounts(struct machine *machine, const char *root)
{
    char path[2 * PATH_BYTES], *line = NULL;
    size_t capacity = 0;
    bool found = false;
    snprintf(path, sizeof path, "%s/proc/self/mountinfo", root);
    FILE *file = fopen(path, "re");
    while (file && getline(&line, &capacity, file) > 0)
        found = read_mount(machine, root, line) || found;
    free(line);
    if (file)
        fclose(file);
    if (!found) // without /proc: where a container of today has them
        read_folder(machine, TREE_V2, root, "/sys/fs/cgroup");
}

// A quota is rounded down. The threads of a forward pass wait for one another, so one that the
// kernel stops for the rest of a period, as it does to those above the quota, stops them all; and
// what is left over is not lost: decoding and the connections take it.
void machine_bound(struct machine *machine, const char *root)
{
    machine->quota = 0.0;
    machine->memory_limited = false;
    read_mounts(machine, root);
    machine->cores = machine->allowed;
    if (machine->quota > 0.0 && machine->quota < machine->allowed)
        machine->cores = machine->quota < 1.0 ? 1 : (int)machine->quota;
}

// The kernel refuses a set that is too small for the cores that it knows of.
static int allowed_cores(int online)
{
    for (size_t most = 1024; most <= 1024 * 1024; most *= 4) {
        size_t bytes = CPU_ALLOC_SIZE(most);
        cpu_set_t *set = CPU_ALLOC(most);
        int count = 0;
        if (set && sched_getaffinity(0, bytes, set) == 0)
            count = CPU_COUNT_S(bytes, set);
        CPU_FREE(set);
        if (count > 0)
            return count;
    }
    return online;
}

void machine_read(struct machine *machine)
{
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    machine->online = online > 0 ? (int)online : 1;
    machine->allowed = allowed_cores(machine->online);
    machine->memory_bytes = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
    machine_bound(machine, "");
}

int machine_cores(void)
{
    struct machine machine;
    machine_read(&machine);
    return machine.cores;
}

void machine_describe(const struct machine *machine, char *text, size_t size)
{
    char cores[64] = "", memory[64] = "";
    bool by_quota = machine->quota > 0.0 && machine->quota < machine->allowed;
    if (by_quota && machine->quota == machine->cores)
        snprintf(cores, sizeof cores, " of %d cores by quota", machine->online);
    else if (by_quota)
        snprintf(cores, sizeof cores, " of %d cores by a quota of %.2f", machine->online,
                 machine->quota);
    else if (machine->allowed < machine->online)
        snprintf(cores, sizeof cores, " of %d cores by affinity", machine->online);
    else
        snprintf(cores, sizeof cores, " core%s", machine->cores == 1 ? "" : "s");
    if (machine->memory_limited)
        snprintf(memory, sizeof memory, ", %lld MiB of memory by limit",
                 (long long)(machine->memory_bytes >> 20));
    snprintf(text, size, "%d%s%s", machine->cores, cores, memory);
}
