/*
 * Runs a fuzz target over files, without libFuzzer: every file of the folders and every file given, whole, then every
 * shorter beginning of it and every byte of its first part changed in a few ways. What a fuzzer once found stays found.
 */
#include <dirent.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/fuzz/fuzz.h"

enum { FILE_MAX = 1 << 20, CUTS = 512, CHANGES = 256 };

static unsigned files, inputs;

/* In a block of its own size, so that AddressSanitizer sees the first byte too many. */
static void run(const uint8_t *data, size_t size)
{
    uint8_t *exact = malloc(size + !size);
    fuzz_require(exact != NULL, "no memory");
    memcpy(exact, data, size);
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
    inputs++;
}

static void run_variants(uint8_t *data, size_t size)
{
    run(data, size);
    for (size_t cut = 0; cut < size && cut < CUTS; cut++)
        run(data, cut);
    for (size_t at = 0; at < size && at < CHANGES; at++) {
        uint8_t was = data[at];
        const uint8_t forms[] = {0, 0xff, 0x7f, (uint8_t)(was + 1), (uint8_t)(was - 1), (uint8_t)(was ^ 0x80)};
        for (size_t i = 0; i < sizeof forms; i++) {
            data[at] = forms[i];
            run(data, size);
        }
        data[at] = was;
    }
}

static void run_file(const char *path)
{
    static uint8_t data[FILE_MAX];
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        exit(1);
    }
    size_t size = fread(data, 1, sizeof data, file);
    fclose(file);
    files++;
    run_variants(data, size);
}

static void run_folder(const char *path)
{
    DIR *folder = opendir(path);
    if (folder == NULL) {
        perror(path);
        exit(1);
    }
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char name[PATH_MAX];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        run_file(name);
    }
    closedir(folder);
}

int main(int argc, char *argv[])
{
    for (int i = 1; i < argc; i++) {
        struct stat status;
        if (stat(argv[i], &status) == 0 && S_ISDIR(status.st_mode))
            run_folder(argv[i]);
        else
            run_file(argv[i]);
    }
    printf("%u files, %u inputs\n", files, inputs);
    return files > 0 ? 0 : 1;
}
