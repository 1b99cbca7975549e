/* listing.c: see listing.h. No state. Refuses answers of more than a hundred thousand files, commits and sums that are
 * none, and two files of one name. jansson limits the depth. */
#include "hub/listing.h"

#include "base/mem.h"

#include <ctype.h>
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { FILES_MAX = 100000, INDEX_FILES_MAX = 10000 };

/* ---- names ---- */

bool hub_is_hex(const char *s, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!isxdigit((unsigned char)s[i])) return false;
    return s[n] == 0;
}

bool hub_name_safe(const char *name) {
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
    return n && n <= HUB_SUM_MAX && !name[n] && name[0] != '.';
}

bool hub_file_wanted(const char *name, unsigned need) {
    static const char *const always[] = {"config.json", "generation_config.json"};
    static const char *const text[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                                       "chat_template.jinja", "chat_template.json"};
    for (size_t i = 0; i < sizeof always / sizeof *always; i++)
        if (!strcmp(name, always[i])) return true;
    for (size_t i = 0; (need & HUB_TEXT) && i < sizeof text / sizeof *text; i++)
        if (!strcmp(name, text[i])) return true;
    return false;
}

/* ---- reading ---- */

static json_t *parse(const char *json, size_t n, const char *what, struct err *e) {
    json_error_t je;
    json_t *root = json_loadb(json, n, JSON_REJECT_DUPLICATES, &je);
    if (root && json_is_object(root)) return root;
    if (root)
        err_input(e, "%s is JSON, but not an object", what);
    else
        err_input(e, "%s is not JSON (%s, line %d)", what, je.text, je.line);
    json_decref(root);
    return NULL;
}

static size_t size_of(const json_t *j) {
    return json_is_integer(j) && json_integer_value(j) >= 0 ? (size_t)json_integer_value(j) : SIZE_MAX;
}

static void set_hex(char *out, const json_t *j, size_t n) {
    const char *s = json_string_value(j);
    if (!s || !hub_is_hex(s, n)) return;
    for (size_t i = 0; i < n; i++) out[i] = (char)tolower((unsigned char)s[i]);
    out[n] = 0;
}

static struct hub_file *add(struct hub_listing *l, const char *name) {
    struct hub_file *f = &l->v[l->n++];
    *f = (struct hub_file){.name = mem_strdup(name), .size = SIZE_MAX};
    return f;
}

/* The sums of a file: LFS's sha256 where there is one, else the git object. */
static void set_sums(struct hub_file *f, const json_t *git, const json_t *sha256) {
    set_hex(f->git, git, 40);
    set_hex(f->sum, sha256, 64);
    if (*f->sum) {
        f->kind = HUB_SUM_SHA256;
    } else if (*f->git) {
        memcpy(f->sum, f->git, sizeof f->git);
        f->kind = HUB_SUM_GIT;
    }
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct hub_file *)a)->name, ((const struct hub_file *)b)->name);
}

static int finish(struct hub_listing *l, struct err *e) {
    if (l->n) qsort(l->v, l->n, sizeof *l->v, by_name);
    for (size_t i = 1; i < l->n; i++)
        if (!strcmp(l->v[i - 1].name, l->v[i].name))
            return err_input(e, "the hub's listing names the file %.200s twice", l->v[i].name);
    return 0;
}

static int room(struct hub_listing *l, size_t n, struct err *e) {
    if (n > FILES_MAX) return err_input(e, "the hub lists %zu files; at most %d are accepted", n, FILES_MAX);
    l->v = mem_zalloc(n, sizeof *l->v);
    return 0;
}

static int read_huggingface(struct hub_listing *l, const json_t *root, struct err *e) {
    const json_t *files = json_object_get(root, "siblings");
    set_hex(l->commit, json_object_get(root, "sha"), 40);
    if (!*l->commit) return err_input(e, "the hub's listing has no commit (\"sha\"); is this a Hugging Face hub?");
    if (!json_is_array(files)) return err_input(e, "the hub's listing has no files (\"siblings\")");
    if (room(l, json_array_size(files), e)) return -1;
    for (size_t i = 0; i < json_array_size(files); i++) {
        const json_t *j = json_array_get(files, i), *lfs = json_object_get(j, "lfs");
        const char *name = json_string_value(json_object_get(j, "rfilename"));
        if (!name) return err_input(e, "file %zu of the hub's listing has no name (\"rfilename\")", i);
        struct hub_file *f = add(l, name);
        f->size = size_of(json_object_get(j, "size"));
        set_sums(f, json_object_get(j, "blobId"), json_object_get(lfs, "sha256"));
        if (f->size == SIZE_MAX) f->size = size_of(json_object_get(lfs, "size"));
    }
    return finish(l, e);
}

static int read_modelscope(struct hub_listing *l, const json_t *root, struct err *e) {
    const json_t *files = json_object_get(json_object_get(root, "Data"), "Files"),
                 *says = json_object_get(root, "Message");
    if (json_is_false(json_object_get(root, "Success")))
        return err_input(e, "the hub refuses: %.200s",
                         json_is_string(says) ? json_string_value(says) : "it does not say why");
    if (!json_is_array(files))
        return err_input(e, "the hub's listing has no files (\"Data\".\"Files\"); is this ModelScope?");
    if (room(l, json_array_size(files), e)) return -1;
    for (size_t i = 0; i < json_array_size(files); i++) {
        const json_t *j = json_array_get(files, i), *type = json_object_get(j, "Type");
        const char *name = json_string_value(json_object_get(j, "Path"));
        if (json_is_string(type) && !strcmp(json_string_value(type), "tree")) continue;
        if (!name) return err_input(e, "file %zu of the hub's listing has no name (\"Path\")", i);
        struct hub_file *f = add(l, name);
        f->size = size_of(json_object_get(j, "Size"));
        set_sums(f, NULL, json_object_get(j, "Sha256"));
    }
    return finish(l, e);
}

static int read_tree(struct hub_listing *l, const char *commit, const json_t *root, struct err *e) {
    const json_t *files = json_object_get(root, "files");
    const char *name;
    json_t *j;
    if (json_integer_value(json_object_get(root, "format_version")) != 1 || !json_is_object(files) ||
        !hub_is_hex(commit, 40))
        return err_input(e, "not a listing of format 1");
    memcpy(l->commit, commit, sizeof l->commit);
    if (room(l, json_object_size(files), e)) return -1;
    json_object_foreach((json_t *)files, name, j) {
        struct hub_file *f = add(l, name);
        f->size = size_of(json_object_get(j, "size"));
        set_sums(f, json_object_get(j, "blob_id"), json_object_get(j, "lfs_sha256"));
    }
    return finish(l, e);
}

/* One body for the three: read() fills what release frees after a failure. */
static int done(struct hub_listing *l, json_t *root, int rc) {
    json_decref(root);
    if (rc) listing_release(l);
    return rc;
}

int listing_parse_huggingface(struct hub_listing *l, const char *json, size_t n, struct err *e) {
    *l = (struct hub_listing){0};
    json_t *root = parse(json, n, "the hub's listing", e);
    return root ? done(l, root, read_huggingface(l, root, e)) : -1;
}

int listing_parse_modelscope(struct hub_listing *l, const char *json, size_t n, struct err *e) {
    *l = (struct hub_listing){0};
    json_t *root = parse(json, n, "the hub's listing", e);
    return root ? done(l, root, read_modelscope(l, root, e)) : -1;
}

int listing_parse_tree(struct hub_listing *l, const char *commit, const char *json, size_t n, struct err *e) {
    *l = (struct hub_listing){0};
    json_t *root = parse(json, n, "the listing", e);
    return root ? done(l, root, read_tree(l, commit, root, e)) : -1;
}

void listing_release(struct hub_listing *l) {
    for (size_t i = 0; i < l->n; i++) free(l->v[i].name);
    free(l->v);
    *l = (struct hub_listing){0};
}

const struct hub_file *listing_find(const struct hub_listing *l, const char *name) {
    struct hub_file key = {.name = (char *)name};
    return l->n ? bsearch(&key, l->v, l->n, sizeof *l->v, by_name) : NULL;
}

int listing_write_tree(const struct hub_listing *l, struct buf *out) {
    buf_adds(out, "{\n \"format_version\": 1,\n \"files\": {");
    for (size_t i = 0; i < l->n; i++) {
        const struct hub_file *f = &l->v[i];
        if (f->size == SIZE_MAX || !*f->git) return -1;
        buf_adds(out, i ? ",\n  " : "\n  ");
        buf_add_json(out, f->name, strlen(f->name));
        buf_addf(out, ": {\"size\": %zu, \"blob_id\": \"%s\"", f->size, f->git);
        if (f->kind == HUB_SUM_SHA256) buf_addf(out, ", \"lfs_sha256\": \"%s\", \"lfs_size\": %zu", f->sum, f->size);
        buf_addc(out, '}');
    }
    return buf_adds(out, "\n }\n}\n");
}

/* ---- the index of the weights ---- */

static int by_string(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static int read_index(const json_t *map, const char **v, size_t *n, struct err *e) {
    const char *key;
    json_t *value;
    size_t all = 0;
    json_object_foreach((json_t *)map, key, value) {
        const char *s = json_string_value(value);
        if (!s || !hub_name_safe(s))
            return err_input(e, "weight_map names the file \"%.200s\" for tensor %.200s", s ? s : "", key);
        v[all++] = s;
    }
    if (all) qsort(v, all, sizeof *v, by_string);
    for (size_t i = 0; i < all; i++)
        if (!*n || strcmp(v[*n - 1], v[i])) v[(*n)++] = v[i];
    if (*n > INDEX_FILES_MAX)
        return err_input(e, "weight_map names %zu files; at most %d are accepted", *n, INDEX_FILES_MAX);
    return *n ? 0 : err_input(e, "weight_map is empty");
}

int index_files(const char *json, size_t n, char ***files, size_t *n_files, struct err *e) {
    json_t *root = parse(json, n, "model.safetensors.index.json", e);
    if (!root) return -1;
    const json_t *map = json_object_get(root, "weight_map");
    const char **v = mem_array(json_object_size(map) + 1, sizeof *v);
    size_t kept = 0;
    int rc = json_is_object(map) ? read_index(map, v, &kept, e) : err_input(e, "weight_map is missing");
    if (!rc) {
        *files = mem_array(kept, sizeof **files);
        *n_files = kept;
        for (size_t i = 0; i < kept; i++) (*files)[i] = mem_strdup(v[i]);
    } else {
        err_prefix(e, "model.safetensors.index.json: ");
    }
    free(v);
    json_decref(root);
    return rc;
}

void listing_complaint(const char *json, size_t n, char out[200]) {
    json_t *root = json_loadb(json, n, 0, NULL);
    static const char *const keys[] = {"error", "Message", "message"};
    out[0] = 0;
    for (size_t i = 0; i < sizeof keys / sizeof *keys && !*out; i++) {
        const char *s = json_string_value(json_object_get(root, keys[i]));
        if (!s) continue;
        size_t w = strcspn(s, "\r\n");
        if (w > 199) w = 199;
        memcpy(out, s, w);
        out[w] = 0;
    }
    json_decref(root);
}
