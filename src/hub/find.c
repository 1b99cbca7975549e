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

/* Seen from the folder of the program: PREFIX/bin, build, build/VARIANT and build/unit. */
static const char *const places[] = {"../share/minisgl/models", "../models", "../../models"};

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

/* base/place/name when it is a folder, as a clean path; else NULL. */
static char *look(const char *base, const char *place, const char *name) {
    char *dir = path_join(base, place), *path = path_join(dir, name), *real = NULL;
    if (dir_exists(path)) real = realpath(path, NULL);
    free(path);
    free(dir);
    return real;
}

static void not_found(const char *name, const char *base, struct err *e) {
    struct buf b;
    buf_init(&b, 700);
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        buf_addf(&b, "%s%s/%s/%.100s", i ? ", " : "", base, places[i], name);
    err_input(e, "no model folder %.100s: looked for it as a path and in %s; downloads come with a later version, until then "
                 "fetch the checkpoint yourself and give its folder", name, buf_str(&b));
    buf_release(&b);
}

char *model_find(const char *name, struct err *e) {
    if (!name) name = "builtin";
    if (!*name) {
        err_input(e, "the model's name is empty; give a folder or a name");
        return NULL;
    }
    if (strcmp(name, "builtin") && dir_exists(name)) return mem_strdup(name);
    char *base = program_folder(e), *found = NULL;
    if (!base) return NULL;
    for (size_t i = 0; i < sizeof places / sizeof *places && !found; i++) found = look(base, places[i], name);
    if (!found) not_found(name, base, e);
    free(base);
    return found;
}
