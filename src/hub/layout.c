/* layout.c: see layout.h. No state; any thread. Refuses names and revisions that could leave the cache. */
#include "hub/layout.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "hub/digest.h"
#include "hub/listing.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { INDEX_BYTES_MAX = 64 << 20, TREE_BYTES_MAX = 64 << 20 };

/* ---- names ---- */

#define WORD "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

static bool word_valid(const char *s, size_t n) {
    if (!n || n > 96 || s[0] == '.' || s[0] == '-' || s[n - 1] == '.' || s[n - 1] == '-') return false;
    for (size_t i = 1; i < n; i++)
        if (s[i] == s[i - 1] && (s[i] == '.' || s[i] == '-')) return false; /* "--" stands for the slash on disk */
    return true;
}

bool hub_name_valid(const char *name, enum hub_source source) {
    size_t n = strspn(name, WORD);
    if (!word_valid(name, n)) return false;
    if (!name[n]) return source == HUB_HUGGINGFACE;
    const char *rest = name + n + 1;
    size_t m = strspn(rest, WORD);
    return name[n] == '/' && word_valid(rest, m) && !rest[m];
}

bool hub_revision_valid(const char *r) {
    size_t n = strspn(r, WORD "/+@");
    if (!n || n > 200 || r[n] || r[0] == '/' || r[n - 1] == '/') return false;
    for (const char *p = r; *p; p += strcspn(p, "/"), p += *p == '/')
        if (*p == '.' || *p == '/') return false;
    return true;
}

/* ---- folders ---- */

static char *printed(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static char *printed(const char *fmt, ...) {
    char *s;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&s, fmt, ap);
    va_end(ap);
    if (n < 0) BUG("vasprintf");
    return s;
}

static char *expand(const struct hub_settings *s, const char *dir) {
    if (dir[0] == '~' && (!dir[1] || dir[1] == '/') && s->home) return printed("%s%s", s->home, dir + 1);
    return mem_strdup(dir);
}

static char *huggingface_cache(const struct hub_settings *s) {
    if (s->hf_cache) return expand(s, s->hf_cache);
    char *home = NULL;
    if (s->hf_home)
        home = expand(s, s->hf_home);
    else if (s->cache_home)
        home = printed("%s/huggingface", s->cache_home);
    else if (s->home)
        home = printed("%s/.cache/huggingface", s->home);
    char *cache = home ? path_join(home, "hub") : NULL;
    free(home);
    return cache;
}

static char *modelscope_cache(const struct hub_settings *s) {
    if (s->ms_cache) return expand(s, s->ms_cache);
    return s->home ? printed("%s/.cache/modelscope", s->home) : NULL;
}

static char *with_dashes(const char *name) {
    const char *slash = strchr(name, '/');
    return slash ? printed("%.*s--%s", (int)(slash - name), name, slash + 1) : mem_strdup(name);
}

int layout_init(struct layout *l, const struct hub_settings *s, const char *name, struct err *e) {
    bool hf = s->source == HUB_HUGGINGFACE;
    *l = (struct layout){.s = s, .name = name};
    l->revision = s->revision ? s->revision : hf ? "main" : "master";
    if (!hub_revision_valid(l->revision))
        return err_input(e, "--revision %.200s: expected a branch, a tag or a commit", l->revision);
    l->cache = hf ? huggingface_cache(s) : modelscope_cache(s);
    if (!l->cache)
        return err_input(e, "there is no folder for downloaded models: neither HOME nor %s is set",
                         hf ? "HF_HOME" : "MODELSCOPE_CACHE");
    char *dashed = with_dashes(name);
    l->root = hf ? printed("%s/models--%s", l->cache, dashed) : printed("%s/models/%s", l->cache, dashed);
    free(dashed);
    return 0;
}

void layout_release(struct layout *l) {
    free(l->cache);
    free(l->root);
    *l = (struct layout){0};
}

char *layout_snapshot(const struct layout *l, const char *commit) {
    return printed("%s/snapshots/%s", l->root, l->s->source == HUB_HUGGINGFACE ? commit : l->revision);
}

/* ---- what is there ---- */

static char *missing_file(const char *dir, const struct hub_listing *list, const char *name) {
    char *path = path_join(dir, name);
    const struct hub_file *f = list ? listing_find(list, name) : NULL;
    struct stat st;
    bool there = stat(path, &st) == 0 && S_ISREG(st.st_mode);
    bool whole = there && (!f || f->size == SIZE_MAX || (size_t)st.st_size == f->size);
    free(path);
    return whole ? NULL : mem_strdup(name);
}

static char *missing_weights(const char *dir, const struct hub_listing *list) {
    const char *single = "model.safetensors", *index = "model.safetensors.index.json";
    char *missing = missing_file(dir, list, single);
    if (!missing || (list && listing_find(list, single))) return missing;
    free(missing);
    missing = missing_file(dir, list, index);
    if (missing) return missing;
    char *path = path_join(dir, index), *text = NULL, **files = NULL;
    size_t n, n_files = 0;
    if (file_read(path, INDEX_BYTES_MAX, &text, &n, NULL) || index_files(text, n, &files, &n_files, NULL))
        missing = mem_strdup(index);
    for (size_t i = 0; i < n_files && !missing; i++) missing = missing_file(dir, list, files[i]);
    for (size_t i = 0; i < n_files; i++) free(files[i]);
    free(files);
    free(text);
    free(path);
    return missing;
}

char *layout_missing(const char *dir, const struct hub_listing *list, unsigned need) {
    char *missing = missing_file(dir, list, "config.json");
    if (!missing && list)
        for (size_t i = 0; i < list->n && !missing; i++)
            if (hub_file_wanted(list->v[i].name, need)) missing = missing_file(dir, list, list->v[i].name);
    if (!missing && !list && (need & HUB_TEXT)) missing = missing_file(dir, NULL, "tokenizer.json");
    if (!missing && (need & HUB_WEIGHTS)) missing = missing_weights(dir, list);
    return missing;
}

/* The commit that the revision means according to the cache; "" when it does not know. */
static void cached_commit(const struct layout *l, char commit[41]) {
    char *path = printed("%s/refs/%s", l->root, l->revision), *text = NULL;
    size_t n;
    commit[0] = 0;
    if (hub_is_hex(l->revision, 40)) {
        memcpy(commit, l->revision, 41);
    } else if (!file_read(path, 200, &text, &n, NULL)) {
        text[strcspn(text, " \r\n")] = 0;
        if (hub_is_hex(text, 40)) memcpy(commit, text, 41);
        free(text);
    }
    free(path);
}

static char *find_huggingface(const struct layout *l, unsigned need, char **missing) {
    char commit[41], *text = NULL;
    struct hub_listing tree;
    size_t n;
    cached_commit(l, commit);
    if (!*commit) {
        *missing = printed("revision %s", l->revision);
        return NULL;
    }
    char *dir = layout_snapshot(l, commit), *path = printed("%s/trees/%s.json", l->root, commit);
    bool listed =
        !file_read(path, TREE_BYTES_MAX, &text, &n, NULL) && !listing_parse_tree(&tree, commit, text, n, NULL);
    *missing = layout_missing(dir, listed ? &tree : NULL, need);
    if (listed) listing_release(&tree);
    free(text);
    free(path);
    if (!*missing) return dir;
    free(dir);
    return NULL;
}

static char *find_modelscope(const struct layout *l, unsigned need, char **missing) {
    const char *slash = strchr(l->name, '/');
    int org = (int)(slash - l->name);
    struct buf safe;
    buf_init(&safe, 1000);
    for (const char *p = slash + 1; *p; p++) buf_adds(&safe, *p == '.' ? "___" : (char[2]){*p, 0});
    char *dirs[] = {layout_snapshot(l, NULL), printed("%s/snapshots/main", l->root),
                    printed("%s/models/%.*s/%s", l->cache, org, l->name, buf_str(&safe)),
                    printed("%s/hub/models/%.*s/%s", l->cache, org, l->name, buf_str(&safe))};
    char *found = NULL;
    *missing = NULL;
    for (int i = 0; i < 4; i++) {
        bool look = !found && (i == 0 || !l->s->revision); /* only the first tells its revision */
        char *lacks = look ? layout_missing(dirs[i], NULL, need) : NULL;
        if (look && !lacks) found = mem_strdup(dirs[i]);
        if (!*missing)
            *missing = lacks;
        else
            free(lacks);
        free(dirs[i]);
    }
    if (found) free(*missing), *missing = NULL;
    buf_release(&safe);
    return found;
}

char *layout_find(const struct layout *l, unsigned need, char **missing) {
    return l->s->source == HUB_HUGGINGFACE ? find_huggingface(l, need, missing) : find_modelscope(l, need, missing);
}

/* ---- writing ---- */

int make_folders(const char *path, struct err *e) {
    char *p = mem_strdup(path);
    int rc = 0;
    for (char *s = p + 1; (s = strchr(s, '/')) && !rc; *s++ = '/') {
        *s = 0;
        if (mkdir(p, 0777) && errno != EEXIST)
            rc = err_machine(
                e, "the folder %s cannot be made: %s; HF_HOME, HF_HUB_CACHE or MODELSCOPE_CACHE name another place", p,
                strerror(errno));
    }
    free(p);
    return rc;
}

/* modelscope_hub's key of a file's lock, so that its downloads and ours wait for each other. */
static char *modelscope_lock(const struct layout *l, const char *file) {
    static const char head[] = "modelscope-hub-download-lock-v2\0file\0model"; /* and its NUL */
    struct digest d;
    char hex[65];
    digest_init(&d, HUB_SUM_SHA256, 0);
    digest_add(&d, head, sizeof head);
    digest_add(&d, l->name, strlen(l->name) + 1);
    digest_add(&d, file, strlen(file));
    digest_end(&d, hex);
    return printed("%s/.lock/file_%s.lock", l->cache, hex);
}

void layout_paths(const struct layout *l, const struct hub_file *f, struct layout_paths *p) {
    if (l->s->source == HUB_HUGGINGFACE) {
        p->whole = printed("%s/blobs/%s", l->root, f->sum);
        p->lock = printed("%s/.locks/%s/%s.lock", l->cache, strrchr(l->root, '/') + 1, f->sum);
    } else {
        p->whole = printed("%s/snapshots/%s/%s", l->root, l->revision, f->name);
        p->lock = modelscope_lock(l, f->name);
    }
    p->part = printed("%s.incomplete", p->whole);
}

void layout_paths_release(struct layout_paths *p) {
    free(p->whole);
    free(p->part);
    free(p->lock);
    *p = (struct layout_paths){0};
}

/* A whole small file under its name in one step. */
static int write_file(const char *path, const char *text, size_t n, struct err *e) {
    char *tmp = printed("%s.%ld.tmp", path, (long)getpid());
    int rc = make_folders(path, e), fd = rc ? -1 : open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (!rc && (fd < 0 || write(fd, text, n) != (ssize_t)n || fsync(fd) || rename(tmp, path)))
        rc = err_machine(e, "%s cannot be written: %s", path, strerror(errno));
    if (fd >= 0) close(fd);
    if (rc) unlink(tmp);
    free(tmp);
    return rc;
}

static int write_tree(const struct layout *l, const struct hub_listing *list, struct err *e) {
    struct buf b;
    buf_init(&b, TREE_BYTES_MAX);
    char *path = printed("%s/trees/%s.json", l->root, list->commit);
    int rc = 0;
    if (!listing_write_tree(list, &b)) rc = write_file(path, buf_str(&b), b.len, e);
    free(path);
    buf_release(&b);
    return rc;
}

/* snapshots/COMMIT/FILE -> ../../blobs/SUM, in one step also where another link was. */
static int link_file(const struct layout *l, const char *dir, const struct hub_file *f, struct err *e) {
    char *path = path_join(dir, f->name), *to = printed("../../blobs/%s", f->sum),
         *tmp = printed("%s.%ld.tmp", path, (long)getpid());
    char was[HUB_SUM_MAX + 20];
    ssize_t n = readlink(path, was, sizeof was - 1);
    int rc = 0;
    (void)l;
    if (n < 0 || (was[n] = 0, strcmp(was, to))) {
        unlink(tmp);
        if (symlink(to, tmp) || rename(tmp, path))
            rc = err_machine(e, "the link %s cannot be made: %s", path, strerror(errno));
    }
    free(path);
    free(to);
    free(tmp);
    return rc;
}

int layout_commit(const struct layout *l, const struct hub_listing *list, const struct hub_file *const *files, size_t n,
                  struct err *e) {
    if (l->s->source != HUB_HUGGINGFACE) return 0;
    char *dir = layout_snapshot(l, list->commit), *inside = path_join(dir, "config.json");
    char *ref = printed("%s/refs/%s", l->root, l->revision);
    int rc = write_tree(l, list, e);
    if (!rc) rc = make_folders(inside, e);
    for (int last = 0; last < 2; last++)
        for (size_t i = 0; i < n && !rc; i++)
            if ((strcmp(files[i]->name, "config.json") == 0) == last) rc = link_file(l, dir, files[i], e);
    if (!rc && strcmp(l->revision, list->commit)) rc = write_file(ref, list->commit, 40, e);
    free(ref);
    free(inside);
    free(dir);
    return rc;
}
