#include "tuning.cuh"
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <string>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

struct record {
    struct tuning_key key;
    cublasLtMatmulAlgo_t algo;
};

struct tuning {
    std::string path; // empty: nowhere to keep it
    std::mutex mutex; // guards what follows
    std::vector<struct record> records;
    bool changed;
};

static const char magic[] = "vitserve tuning 2\n";

// Only letters, digits and dashes: the name of a GPU has blanks.
static std::string file_name(const struct cuda_backend *backend, size_t version)
{
    std::string name = std::string("tuning-") + backend->base.device_name + "-" +
                       std::to_string(backend->multiprocessors) + "-" + std::to_string(version);
    for (char &c : name)
        if (!isalnum(static_cast<unsigned char>(c)))
            c = '-';
    return name;
}

static std::string cache_directory()
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    return cache && *cache ? std::string(cache) + "/vitserve"
           : home          ? std::string(home) + "/.cache/vitserve"
                           : std::string();
}

static void read_records(struct tuning *tuning)
{
    FILE *file = fopen(tuning->path.c_str(), "rb");
    if (!file)
        return;
    char head[sizeof magic];
    struct record record;
    if (fread(head, sizeof magic, 1, file) == 1 && memcmp(head, magic, sizeof magic) == 0)
        while (fread(&record, sizeof record, 1, file) == 1)
            tuning->records.push_back(record);
    fclose(file);
}

enum status tuning_open(const struct cuda_backend *backend, size_t version, struct tuning **out)
{
    struct tuning *tuning = *out = new (std::nothrow) struct tuning();
    if (!tuning)
        return status_fail(STATUS_OUT_OF_MEMORY, "cuda: out of memory");
    std::string directory = cache_directory();
    if (directory.empty())
        return STATUS_OK;
    tuning->path = directory + "/" + file_name(backend, version);
    read_records(tuning);
    return STATUS_OK;
}

static struct record *find(struct tuning *tuning, const struct tuning_key *key)
{
    for (struct record &record : tuning->records)
        if (memcmp(&record.key, key, sizeof *key) == 0)
            return &record;
    return nullptr;
}

bool tuning_find(struct tuning *tuning, const struct tuning_key *key, cublasLtMatmulAlgo_t *algo)
{
    std::lock_guard<std::mutex> lock(tuning->mutex);
    const struct record *record = find(tuning, key);
    if (record)
        *algo = record->algo;
    return record;
}

void tuning_keep(struct tuning *tuning, const struct tuning_key *key,
                 const cublasLtMatmulAlgo_t *algo)
{
    std::lock_guard<std::mutex> lock(tuning->mutex);
    struct record *record = find(tuning, key);
    if (record)
        record->algo = *algo;
    else
        tuning->records.push_back({*key, *algo});
    tuning->changed = true;
}

static void make_directories(const std::string &path)
{
    for (size_t at = path.find('/', 1); at != std::string::npos; at = path.find('/', at + 1))
        mkdir(path.substr(0, at).c_str(), 0755);
}

// Beside the file first, then renamed: another process never reads half of it.
static void write_records(const struct tuning *tuning)
{
    std::string fresh = tuning->path + "." + std::to_string(getpid());
    make_directories(tuning->path);
    FILE *file = fopen(fresh.c_str(), "wb");
    if (!file)
        return;
    bool written = fwrite(magic, sizeof magic, 1, file) == 1;
    for (const struct record &record : tuning->records)
        written = written && fwrite(&record, sizeof record, 1, file) == 1;
    if (fclose(file) != 0 || !written || rename(fresh.c_str(), tuning->path.c_str()) != 0)
        unlink(fresh.c_str());
}

void tuning_save(struct tuning *tuning)
{
    std::lock_guard<std::mutex> lock(tuning->mutex);
    if (tuning->changed && !tuning->path.empty())
        write_records(tuning);
    tuning->changed = false;
}

void tuning_free(struct tuning *tuning)
{
    delete tuning;
}
