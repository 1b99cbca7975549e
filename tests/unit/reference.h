/* reference.h: where the tests' reference data lies: $MINISGL_TEST_DATA, else ../shared/data beside the repository. */
#ifndef MINISGL_TESTS_REFERENCE_H
#define MINISGL_TESTS_REFERENCE_H
#include "base/file.h"

#include <stdio.h>
#include <stdlib.h>

/* The path of a folder or file of the reference data (free it), or NULL after saying that the test skips. */
static inline char *reference(const char *name) {
    const char *dir = getenv("MINISGL_TEST_DATA");
    char *path = path_join(dir && *dir ? dir : "../shared/data", name);
    if (file_exists(path) || dir_exists(path)) return path;
    printf("skipped: the reference data has no %s\n", path);
    free(path);
    return NULL;
}

#endif
