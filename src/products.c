/* products.c: see products.h. No state; the main thread. */
#include "products.h"

#include "base/file.h"
#include "base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char *products_path(const struct options *o) {
    char *cache = o->cache_home ? mem_strdup(o->cache_home) : o->home ? path_join(o->home, ".cache") : NULL;
    char *path = cache ? path_join(cache, "minisgl/products.txt") : NULL;
    free(cache);
    return path;
}

int products_read(struct lintab *t, const char *path, bool must, struct err *e) {
    char *text;
    size_t n;
    *t = (struct lintab){0};
    if (!must && !file_exists(path)) return 0;
    if (file_read(path, LINTAB_BYTES_MAX, &text, &n, e)) return -1;
    int rc = lintab_read(t, text, n, e);
    free(text);
    return rc ? err_prefix(e, "%s: ", path) : 0;
}

static int make_folders(const char *path, struct err *e) {
    char *dir = mem_strdup(path);
    int rc = 0;
    for (char *p = strchr(dir + 1, '/'); p && !rc; p = strchr(p + 1, '/')) {
        *p = 0;
        if (mkdir(dir, 0777) && errno != EEXIST) rc = err_machine(e, "%s: the folder cannot be made: %s", dir, strerror(errno));
        *p = '/';
    }
    free(dir);
    return rc;
}

int products_write(const struct lintab *t, const char *path, struct err *e) {
    size_t n = strlen(path) + 8;
    char *tmp = mem_alloc(n);
    snprintf(tmp, n, "%s.part", path);
    int rc = make_folders(path, e);
    FILE *to = rc ? NULL : fopen(tmp, "w");
    if (to) {
        lintab_write(t, to);
        bool bad = ferror(to);
        if (fclose(to) || bad || rename(tmp, path)) to = NULL;
    }
    if (!rc && !to) {
        rc = err_machine(e, "%s: writing the table failed: %s", path, strerror(errno));
        unlink(tmp);
    }
    free(tmp);
    return rc;
}
