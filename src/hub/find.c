/* find.c: see find.h. No state; one thread at a time. Refuses names that are neither folders nor could be on a hub. */
#include "hub/find.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

/* place/name when it is a folder with what is needed, as a clean path; else NULL. *there: it is a folder. */
static char *look(const char *place, const char *name, unsigned need, bool *there) {
    char *path = path_join(place, name), *real = dir_exists(path) ? realpath(path, NULL) : NULL;
    char *missing = real ? layout_missing(real, NULL, need) : NULL;
    free(path);
    *there |= real != NULL;
    if (missing) free(real), real = NULL;
    free(missing);
    return real;
}

/* models/NAME beside the program. *shape: the folder is there, but has only a part of what is needed. */
static char *find_beside(const char *name, unsigned need, bool *shape, struct err *e) {
    char *places[2], *found = NULL, *base = program_folder(e);
    bool there = false;
    if (!base) return NULL;
    int n = places_of(base, places);
    for (int i = 0; i < n && !found; i++) found = look(places[i], name, need, &there);
    if (!found && !strcmp(name, "builtin"))
        err_input(e, "the built-in model is neither in %s%s%s; give --model a folder or a name", places[0],
                  n > 1 ? " nor in " : "", n > 1 ? places[1] : "");
    *shape = there && !found;
    for (int i = 0; i < n; i++) free(places[i]);
    free(base);
    return found;
}

static char *find_on_hub(const char *name, unsigned need, bool shape, const struct hub_settings *s, hub_check *check,
                         struct err *e) {
    struct layout l;
    char *missing = NULL, *found = NULL;
    if (layout_init(&l, s, name, e)) return NULL;
    found = layout_find(&l, need, &missing);
    if (found)
        log_info("found %s in %s", name, found);
    else if (!s->offline)
        found = hub_download(&l, need, check, e);
    else
        err_input(e, "%s is not in %s (it lacks %s), and HF_HUB_OFFLINE or --offline forbids to download it%s", name,
                  l.root, missing, shape ? "; its shape is known: --dummy-weight runs it with random weights" : "");
    free(missing);
    layout_release(&l);
    return found;
}

char *model_find(const char *name, unsigned need, const struct hub_settings *s, hub_check *check, struct err *e) {
    bool shape = false, builtin = !name || !strcmp(name, "builtin");
    if (builtin && s->revision) {
        err_input(e, "--revision %.100s: the built-in model has no revisions; --model names one of a hub", s->revision);
        return NULL;
    }
    if (builtin) return find_beside("builtin", HUB_CONFIG, &shape, e);
    if (!*name) {
        err_input(e, "the model's name is empty; give a folder or a name");
        return NULL;
    }
    bool folder = dir_exists(name);
    if (folder && s->revision) {
        err_input(e,
                  "--revision %.100s: %.300s is a folder here, and a folder wins over a model on the hub; leave the "
                  "one or rename the other",
                  s->revision, name);
        return NULL;
    }
    if (folder) return mem_strdup(name);
    if (!hub_name_valid(name, s->source)) {
        err_input(e, "there is no folder %.300s, and it is no name of a model on %s (ORG/NAME)", name,
                  s->source == HUB_HUGGINGFACE ? "Hugging Face" : "ModelScope");
        return NULL;
    }
    e->kind = ERR_NONE;
    char *found = s->revision ? NULL : find_beside(name, need, &shape, e);
    if (found || e->kind) return found;
    return find_on_hub(name, need, shape, s, check, e);
}
