/* download.c: which files, in which order. One thread. The small files come first, so that a model that cannot be run
 * is refused before its weights are downloaded. Refuses a repository without safetensors. */
#include "hub/download.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "hub/listing.h"
#include "hub/transfer.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

enum { LISTING_BYTES_MAX = 64 << 20, INDEX_BYTES_MAX = 64 << 20 };
static const char single[] = "model.safetensors", index_name[] = "model.safetensors.index.json";

struct download {
    const struct layout *l;
    struct hub_client c;
    struct hub_listing list;
    const struct hub_file **files; /* all that were downloaded */
    struct transfer *v;
    size_t n, cap;
    struct progress p;
    struct err *e;
};

static bool huggingface(const struct download *d) { return d->l->s->source == HUB_HUGGINGFACE; }

/* ---- the listing ---- */

static int get_listing(struct download *d) {
    const struct layout *l = d->l;
    char *revision = hub_escape(l->revision);
    struct buf url, text;
    buf_init(&url, 4096);
    if (huggingface(d))
        buf_addf(&url, "%s/api/models/%s/revision/%s?blobs=true", d->c.endpoint, l->name, revision);
    else
        buf_addf(&url, "%s/api/v1/models/%s/repo/files?Revision=%s&Recursive=true", d->c.endpoint, l->name, revision);
    int rc = hub_get(&d->c, buf_str(&url), "the list of files", LISTING_BYTES_MAX, &text, d->e);
    if (!rc) {
        rc = huggingface(d) ? listing_parse_huggingface(&d->list, buf_str(&text), text.len, d->e)
                            : listing_parse_modelscope(&d->list, buf_str(&text), text.len, d->e);
        if (rc) err_prefix(d->e, "%s: ", d->c.host), d->e->kind = ERR_MACHINE;
        buf_release(&text);
    }
    buf_release(&url);
    free(revision);
    return rc;
}

static char *file_url(const struct download *d, const char *name) {
    char *file = hub_escape(name), *revision = hub_escape(d->l->revision);
    struct buf url;
    buf_init(&url, 8192);
    if (huggingface(d))
        buf_addf(&url, "%s/%s/resolve/%s/%s", d->c.endpoint, d->l->name, d->list.commit, file);
    else
        buf_addf(&url, "%s/api/v1/models/%s/repo?Revision=%s&FilePath=%s", d->c.endpoint, d->l->name, revision, file);
    free(file);
    free(revision);
    return buf_take(&url, NULL);
}

/* ---- some files ---- */

static int add_file(struct download *d, const struct hub_file *f) {
    char *url = file_url(d, f->name);
    if (huggingface(d) && (!*f->sum || f->size == SIZE_MAX)) { /* a mirror that does not tell sums in its listing */
        struct hub_file *asked = &d->list.v[f - d->list.v];
        if (hub_head(&d->c, url, f->name, asked, d->e)) {
            free(url);
            return -1;
        }
    }
    transfer_init(&d->v[d->n], f, url, d->l);
    d->v[d->n].hold = !huggingface(d) && !strcmp(f->name, "config.json");
    d->files[d->n++] = f;
    return 0;
}

/* Room for what is to come, told before it is downloaded. */
static int check_room(struct download *d, size_t from) {
    struct statvfs fs;
    size_t left = 0;
    char needs[24], has[24];
    for (size_t i = from; i < d->n; i++) left += transfer_left(&d->v[i]);
    char *inside = path_join(d->l->root, "");
    int rc = make_folders(inside, d->e);
    free(inside);
    if (rc || statvfs(d->l->root, &fs)) return rc;
    size_t avail = (size_t)fs.f_bavail * fs.f_frsize;
    if (!left || avail >= left) return 0;
    return err_machine(
        d->e,
        "%s needs %s more and the disk of %s has %s: make room, or let HF_HOME or MODELSCOPE_CACHE name another disk",
        d->l->name, size_words(needs, (double)left), d->l->cache, size_words(has, (double)avail));
}

/* Download the files added since `from`. */
static int fetch(struct download *d, size_t from) {
    if (check_room(d, from)) return -1;
    for (size_t i = from; i < d->n; i++) {
        d->p.files++;
        if (d->v[i].file->size != SIZE_MAX) d->p.size += d->v[i].file->size;
    }
    return transfers_run(&d->c, d->v + from, d->n - from, &d->p, d->e);
}

/* Where a file that was fetched lies. */
static const char *place_of(const struct download *d, const char *name) {
    for (size_t i = 0; i < d->n; i++)
        if (!strcmp(d->v[i].file->name, name))
            return d->v[i].hold && file_exists(d->v[i].paths.part) ? d->v[i].paths.part : d->v[i].paths.whole;
    return NULL;
}

/* ---- the weights ---- */

static int no_weights(struct download *d) {
    return err_input(
        d->e,
        "%s has no weights that can be read: neither %s nor %s is among its %zu files (other formats, such as "
        "pytorch_model.bin or GGUF, are not read)",
        d->l->name, single, index_name, d->list.n);
}

static int add_indexed(struct download *d, char *const *names, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const struct hub_file *f = listing_find(&d->list, names[i]);
        if (!f)
            return err_input(d->e, "%s: %s names %s, which the hub does not have", d->l->name, index_name, names[i]);
        if (add_file(d, f)) return -1;
    }
    return 0;
}

/* The files that hold weights, when they are several. */
static int add_weights(struct download *d) {
    char *text = NULL, **names = NULL;
    size_t len, n = 0;
    if (listing_find(&d->list, single)) return add_file(d, listing_find(&d->list, single));
    int rc = file_read(place_of(d, index_name), INDEX_BYTES_MAX, &text, &len, d->e);
    if (!rc) rc = index_files(text, len, &names, &n, d->e);
    d->v = mem_grow(d->v, d->n + n + 1, sizeof *d->v);
    d->files = mem_grow(d->files, d->n + n + 1, sizeof *d->files);
    if (!rc) rc = add_indexed(d, names, n);
    for (size_t i = 0; i < n; i++) free(names[i]);
    free(names);
    free(text);
    return rc;
}

/* ---- all of it ---- */

static int add_small(struct download *d, unsigned need) {
    d->v = mem_array(d->list.n + 1, sizeof *d->v);
    d->files = mem_array(d->list.n + 1, sizeof *d->files);
    bool indexed = (need & HUB_WEIGHTS) && !listing_find(&d->list, single);
    if (!listing_find(&d->list, "config.json"))
        return err_input(d->e,
                         "%s has no config.json among its %zu files: it is no model in the format of Hugging Face",
                         d->l->name, d->list.n);
    if (indexed && !listing_find(&d->list, index_name)) return no_weights(d);
    for (size_t i = 0; i < d->list.n; i++) {
        const struct hub_file *f = &d->list.v[i];
        bool wanted = hub_file_wanted(f->name, need) || (indexed && !strcmp(f->name, index_name));
        if (wanted && add_file(d, f)) return -1;
    }
    return 0;
}

/* ModelScope's config.json gets its name last of all. */
static int release_held(struct download *d) {
    for (size_t i = 0; i < d->n; i++) {
        const struct transfer *t = &d->v[i];
        if (t->hold && rename(t->paths.part, t->paths.whole) && !file_exists(t->paths.whole))
            return err_machine(d->e, "%s cannot become %s: %s", t->paths.part, t->paths.whole, strerror(errno));
    }
    return 0;
}

static int get_all(struct download *d, unsigned need, hub_check *check) {
    if (get_listing(d) || add_small(d, need) || fetch(d, 0)) return -1;
    if (check && check(place_of(d, "config.json"), d->e)) return err_prefix(d->e, "%s: ", d->l->name);
    size_t small = d->n;
    if ((need & HUB_WEIGHTS) && (add_weights(d) || fetch(d, small))) return -1;
    if (release_held(d)) return -1;
    return layout_commit(d->l, &d->list, d->files, d->n, d->e);
}

char *hub_download(const struct layout *l, unsigned need, hub_check *check, struct err *e) {
    struct download d = {.l = l, .e = e};
    char size[24], time[24], rate[24], *dir = NULL;
    progress_init(&d.p, l->name);
    if (hub_client_open(&d.c, l->s, l->name, l->revision, e)) goto out;
    log_info("looking for %s on %s", l->name, d.c.host);
    if (get_all(&d, need, check)) goto out;
    double s = (double)(clock_ns() - d.p.start) / 1e9 + 1e-6;
    log_info("downloaded %s: %zu files, %s came in %s, %s/s", l->name, d.p.files_done,
             size_words(size, (double)d.p.arrived), time_words(time, s), size_words(rate, (double)d.p.arrived / s));
    dir = layout_snapshot(l, d.list.commit);
out:
    for (size_t i = 0; i < d.n; i++) transfer_release(&d.v[i]);
    free(d.v);
    free(d.files);
    listing_release(&d.list);
    hub_client_close(&d.c);
    return dir;
}
