#include "tests/lib/census.h"

#include <dirent.h>
#include <sched.h>
#include <stddef.h>

#include "transport/clock.h"

/* Entries of a directory of /proc, without "." and "..". */
static unsigned entries(const char *path)
{
    unsigned count = 0;
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir && (entry = readdir(dir)) != NULL;)
        count += entry->d_name[0] != '.';
    if (dir)
        closedir(dir);
    return count;
}

unsigned census_fds(void)
{
    return entries("/proc/self/fd") - 1; /* the one that reads the directory */
}

unsigned census_threads(unsigned most)
{
    uint64_t deadline = clock_now_ms() + 1000;
    unsigned count;
    while ((count = entries("/proc/self/task")) > most && clock_now_ms() < deadline)
        sched_yield();
    return count;
}
