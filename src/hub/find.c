/* find.c: see find.h. No state; any thread. Refuses names that are in none of the places: nothing is downloaded. */
#include "hub/find.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The folder that the running program lies in; malloc'd. */
static char *program_folder(struct err *e) {
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n <= 0) {
        err_machine(e, "cannot find the program's own folder: /proc/self/exe: %s", strerror(errno));
        return NULL;
    }
    path[n] = 0;
    char *slash = strrchr(path, '/');
    if (slash) *slash = 0;
    return mem_strdup(path);
}

/* Where models lie beside the program: PREFIX/share/minisgl for PREFIX/bin, and the source tree for anything below
 * its build folder. At most two; the caller frees them. */
static int places_of(const char *base, char *places[2]) {
    int n = 0;
    places[n++] = path_join(base, "../share/minisgl/models");
    for (const char *p = base; (p = strstr(p, "/build")); p++)
        if (!p[6] || p[6] == '/') {
            char *tree = mem_strndup(base, (size_t)(p - base));
            free(n == 2 ? places[--n] : NULL); /* the innermost build folder counts */
            places[n++] = path_join(tree, "models");
            free(tree);
        }
    return n;
}

/* place/name when it is a folder, as a clean path; else NULL. */
static char *look(const char *place, const char *name) {
    char *path = path_join(place, name), *real = dir_exists(path) ? realpath(path, NULL) : NULL;
    free(path);
    return real;
}

static void not_found(const char *name, char **places, int n, struct err *e) {
    struct buf b;
    buf_init(&b, 700);
    for (int i = 0; i < n; i++) buf_addf(&b, "%s%s", i ? " and " : "", places[i]);
    err_input(
        e,
        "there is no model %.100s: it is no folder, and not in %s; downloads come with a later version, until then "
        "fetch the checkpoint yourself and give its folder",
        name, buf_str(&b));
    buf_release(&b);
}

char *model_find(const char *name, struct err *e) {
    char *places[2], *found = NULL;
    if (!name) name = "builtin";
    if (!*name) {
        err_input(e, "the model's name is empty; give a folder or a name");
        return NULL;
    }
    if (strcmp(name, "builtin") && dir_exists(name)) return mem_strdup(name);
    char *base = program_folder(e);
    if (!base) return NULL;
    int n = places_of(base, places);
    for (int i = 0; i < n && !found; i++) found = look(places[i], name);
    if (!found) not_found(name, places, n, e);
    for (int i = 0; i < n; i++) free(places[i]);
    free(base);
    return found;
}
