/* checkpoint.c: the safetensors files of a folder as one set of tensors. Opened and closed by the main thread; constant
 * in between, so any thread may look up. Refuses an index that leaves its folder or does not agree with its files. */
#include "base/file.h"
#include "base/mem.h"
#include "model/fields.h"
#include "model/safetensors.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { INDEX_BYTES_MAX = 64 << 20, FILES_MAX = 10000 };

struct checkpoint {
    struct file_map *maps;
    char **files; /* base names */
    size_t n_files;
    struct tensor *v; /* in order of name; names and nothing else are owned */
    size_t n, cap, bytes;
};

static int add_tensor(void *arg, const struct tensor *t, struct err *e) {
    struct checkpoint *c = arg;
    if (!size_add(c->bytes, t->bytes, &c->bytes)) return err_input(e, "%s: more bytes than there can be", t->file);
    if (c->n == c->cap) c->v = mem_grow(c->v, c->cap = c->cap ? c->cap * 2 : 256, sizeof *c->v);
    c->v[c->n] = *t;
    c->v[c->n++].name = mem_strdup(t->name);
    return 0;
}

static int add_file(struct checkpoint *c, const char *dir, const char *name, struct err *e) {
    char *path = path_join(dir, name);
    c->maps = mem_grow(c->maps, c->n_files + 1, sizeof *c->maps);
    c->files = mem_grow(c->files, c->n_files + 1, sizeof *c->files);
    int rc = file_map_open(&c->maps[c->n_files], path, e);
    if (!rc) {
        const struct file_map *m = &c->maps[c->n_files];
        const char *file = c->files[c->n_files++] = mem_strdup(name);
        rc = safetensors_parse(m->data, m->len, file, add_tensor, c, e);
        if (rc) err_prefix(e, "%s/", dir);
    }
    free(path);
    return rc;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct tensor *)a)->name, ((const struct tensor *)b)->name);
}

static void sort(struct checkpoint *c) {
    if (c->n) qsort(c->v, c->n, sizeof *c->v, by_name);
}

/* ---- the index: {"metadata": .., "weight_map": {tensor: file}} ---- */

static int check_file_name(const char *s, const char *tensor, struct err *e) {
    if (!s) return err_input(e, "weight_map must name a file for tensor %.200s", tensor);
    if (!*s || strchr(s, '/') || strchr(s, '\\') || !strcmp(s, ".") || !strcmp(s, ".."))
        return err_input(e, "the file \"%.200s\" of tensor %.200s must lie in the checkpoint's own folder", s, tensor);
    return 0;
}

static int by_string(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* The distinct files of the map, sorted; borrowed from it. */
static int list_files(const json_t *map, const char ***out, size_t *n_out, struct err *e) {
    const char *key;
    json_t *value;
    size_t n = 0, kept = 0;
    const char **v = mem_array(json_object_size(map) + 1, sizeof *v);
    *out = v;
    json_object_foreach((json_t *)map, key, value) {
        if (check_file_name(json_string_value(value), key, e)) return -1;
        v[n++] = json_string_value(value);
    }
    qsort(v, n, sizeof *v, by_string);
    for (size_t i = 0; i < n; i++)
        if (!kept || strcmp(v[kept - 1], v[i])) v[kept++] = v[i];
    *n_out = kept;
    if (kept > FILES_MAX) return err_input(e, "weight_map names %zu files; at most %d are accepted", kept, FILES_MAX);
    return n ? 0 : err_input(e, "weight_map is empty");
}

/* Each tensor exactly where the index says, and none besides. */
static int check_map(const struct checkpoint *c, const json_t *map, struct err *e) {
    const char *key;
    json_t *value;
    for (size_t i = 0; i < c->n; i++) {
        const char *said = json_string_value(json_object_get(map, c->v[i].name));
        if (!said || strcmp(said, c->v[i].file))
            return err_input(e, "tensor %.200s lies in %.200s, and weight_map says %.200s", c->v[i].name, c->v[i].file,
                             said ? said : "nothing of it");
    }
    json_object_foreach((json_t *)map, key, value) {
        if (!checkpoint_find(c, key))
            return err_input(e, "tensor %.200s is not in %.200s, where weight_map says", key, json_string_value(value));
    }
    return 0;
}

static int open_index(struct checkpoint *c, const char *dir, const char *path, struct err *e) {
    char *text = NULL;
    const char **files = NULL;
    size_t n, n_files = 0;
    json_t *root = NULL;
    int rc = -1;
    if (file_read(path, INDEX_BYTES_MAX, &text, &n, e)) goto out;
    if (fields_parse(&root, text, n, path, e)) goto out;
    struct fields f = {.obj = root, .where = path, .e = e};
    const json_t *map = fields_object(&f, "weight_map");
    if (!map) fields_complain(&f, "weight_map is missing; it must map tensors to files");
    if (f.bad) goto out;
    if (list_files(map, &files, &n_files, e)) {
        err_prefix(e, "%s: ", path);
        goto out;
    }
    for (size_t i = 0; i < n_files; i++)
        if (add_file(c, dir, files[i], e)) goto out;
    sort(c);
    rc = check_map(c, map, e);
    if (rc) err_prefix(e, "%s: ", path);
out:
    free(files);
    json_decref(root);
    free(text);
    return rc;
}

/* ---- the public face ---- */

/* A name in the folder, also one of a dangling link: that must be told, not passed over. */
static bool path_present(const char *path) {
    struct stat st;
    return lstat(path, &st) == 0;
}

int checkpoint_open(struct checkpoint **out, const char *dir, struct err *e) {
    struct checkpoint *c = mem_zalloc(1, sizeof *c);
    char *single = path_join(dir, "model.safetensors"), *index = path_join(dir, "model.safetensors.index.json");
    int rc;
    if (path_present(single)) {
        rc = add_file(c, dir, "model.safetensors", e);
        sort(c);
    } else if (path_present(index))
        rc = open_index(c, dir, index, e);
    else
        rc = err_input(e,
                       "%s has no weights: expected model.safetensors or model.safetensors.index.json (other formats, "
                       "such as pytorch_model.bin or GGUF, are not read)",
                       dir);
    free(index);
    free(single);
    if (rc)
        checkpoint_close(c);
    else
        *out = c;
    return rc;
}

void checkpoint_close(struct checkpoint *c) {
    if (!c) return;
    for (size_t i = 0; i < c->n; i++) free((char *)c->v[i].name);
    for (size_t i = 0; i < c->n_files; i++) {
        file_map_close(&c->maps[i]);
        free(c->files[i]);
    }
    free(c->v);
    free(c->maps);
    free(c->files);
    free(c);
}

const struct tensor *checkpoint_find(const struct checkpoint *c, const char *name) {
    struct tensor key = {.name = name};
    return c->n ? bsearch(&key, c->v, c->n, sizeof *c->v, by_name) : NULL;
}

size_t checkpoint_count(const struct checkpoint *c) { return c->n; }
const struct tensor *checkpoint_at(const struct checkpoint *c, size_t i) { return i < c->n ? &c->v[i] : NULL; }
size_t checkpoint_bytes(const struct checkpoint *c) { return c->bytes; }
