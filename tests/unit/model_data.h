/* model_data.h: where the model tests find reference data, and small helpers they share. */
#ifndef MINISGL_TESTS_MODEL_DATA_H
#define MINISGL_TESTS_MODEL_DATA_H
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The path of NAME in the reference data, or NULL after a line that says what is skipped. */
static inline const char *model_data(const char *name) {
    static char path[4096];
    const char *root = getenv("MINISGL_TEST_DATA");
    snprintf(path, sizeof path, "%s/%s", root ? root : "../shared/data", name);
    if (access(path, R_OK) == 0) return path;
    fprintf(stderr, "skipped: no %s (set MINISGL_TEST_DATA to the reference data)\n", path);
    return NULL;
}

/* A fresh empty folder; it and what the test wrote there are removed by model_dir_remove. */
static inline char *model_dir_make(void) {
    static char path[64];
    snprintf(path, sizeof path, "/tmp/minisgl-test-XXXXXX");
    return mkdtemp(path);
}

static inline void model_dir_remove(const char *dir) {
    char cmd[256];
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    if (system(cmd)) fprintf(stderr, "could not remove %s\n", dir);
}

static inline void model_file_write(const char *dir, const char *name, const void *data, size_t n) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, n, f) != n || fclose(f)) {
        perror(path);
        abort();
    }
}

#endif
