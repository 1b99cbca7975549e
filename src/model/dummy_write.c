/* dummy_write.c: a whole checkpoint folder of dummy weights, written in a stream: no tensor is ever whole in memory.
 * One thread. Refuses to write into a folder that has anything in it. */
#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "model/dummy.h"
#include "model/slots.h"
#include "model/weights.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE = 1 << 20, HEADER_MAX = 100000000, COPY_MAX = 256 << 20 };

struct item {
    struct slot s;
    size_t bytes;
    size_t file; /* number of its shard, from 0 */
};

struct writer {
    const struct config *c;
    const char *dir;
    struct dummy d;
    size_t shard_bytes;
    struct item *v;
    size_t n, cap, n_files, filled, total;
    void *piece; /* PIECE elements */
    struct err *e;
};

static int add_item(void *arg, const struct slot *s) {
    struct writer *w = arg;
    if (w->n == w->cap) w->v = mem_grow(w->v, w->cap = w->cap ? 2 * w->cap : 256, sizeof *w->v);
    size_t bytes = (size_t)s->n * (size_t)s->k * dtype_size(w->c->dtype);
    /* a tensor that is larger than a shard has one to itself */
    if (!w->n_files || (w->filled && (bytes > w->shard_bytes || w->filled > w->shard_bytes - bytes))) {
        w->n_files++;
        w->filled = 0;
    }
    w->v[w->n++] = (struct item){.s = *s, .bytes = bytes, .file = w->n_files - 1};
    w->filled += bytes;
    w->total += bytes;
    return 0;
}

static void file_name(const struct writer *w, size_t file, char out[64]) {
    if (w->n_files == 1)
        snprintf(out, 64, "model.safetensors");
    else
        snprintf(out, 64, "model-%05zu-of-%05zu.safetensors", file + 1, w->n_files);
}

/* ---- one file ---- */

static int header(const struct writer *w, size_t from, size_t to, struct buf *b) {
    static const char *const names[] = {[DT_F32] = "F32", [DT_BF16] = "BF16", [DT_F16] = "F16"};
    size_t at = 0;
    buf_adds(b, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = from; i < to; i++) {
        const struct item *it = &w->v[i];
        buf_addf(b, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", it->s.name, names[w->c->dtype]);
        if (it->s.vector)
            buf_addf(b, "%d", it->s.k);
        else
            buf_addf(b, "%d,%d", it->s.n, it->s.k);
        buf_addf(b, "],\"data_offsets\":[%zu,%zu]}", at, at + it->bytes);
        at += it->bytes;
    }
    buf_addc(b, '}');
    while (b->len % 8 && !b->over) buf_addc(b, ' ');
    return b->over ? err_input(w->e, "the header of a shard would pass %d bytes; choose smaller shards", HEADER_MAX)
                   : 0;
}

static int put(const struct writer *w, FILE *f, const char *path, const void *data, size_t n) {
    return fwrite(data, 1, n, f) == n ? 0 : err_machine(w->e, "cannot write %s: %s", path, strerror(errno));
}

static int put_tensor(const struct writer *w, FILE *f, const char *path, const struct item *it) {
    const size_t size = dtype_size(w->c->dtype), n = it->bytes / size;
    const uint64_t key = dummy_key(&w->d, it->s.name);
    for (size_t at = 0, take; at < n; at += take) {
        take = n - at < PIECE ? n - at : PIECE;
        if (it->s.norm)
            dummy_ones(&w->d, take, w->piece);
        else
            dummy_fill(&w->d, key, at, take, w->piece);
        if (put(w, f, path, w->piece, take * size)) return -1;
    }
    return 0;
}

static int put_file(const struct writer *w, FILE *f, const char *path, size_t from, size_t to) {
    struct buf b;
    buf_init(&b, HEADER_MAX);
    int rc = header(w, from, to, &b);
    unsigned char size[8];
    for (int i = 0; i < 8; i++) size[i] = (unsigned char)((uint64_t)b.len >> 8 * i);
    if (!rc) rc = put(w, f, path, size, 8);
    if (!rc) rc = put(w, f, path, b.data, b.len);
    for (size_t i = from; i < to && !rc; i++) rc = put_tensor(w, f, path, &w->v[i]);
    buf_release(&b);
    return rc;
}

/* A file that could not be written whole is removed. */
static int write_file(const struct writer *w, const char *name, size_t from, size_t to, const struct buf *text) {
    char *path = path_join(w->dir, name);
    FILE *f = fopen(path, "wbx");
    int rc = f ? 0 : err_machine(w->e, "cannot create %s: %s", path, strerror(errno));
    if (f) {
        rc = text ? put(w, f, path, text->data, text->len) : put_file(w, f, path, from, to);
        if (fclose(f) && !rc) rc = err_machine(w->e, "cannot write %s: %s", path, strerror(errno));
        if (rc) unlink(path);
    }
    free(path);
    return rc;
}

static int write_shards(const struct writer *w) {
    int rc = 0;
    for (size_t from = 0, to; from < w->n && !rc; from = to) {
        char name[64];
        for (to = from; to < w->n && w->v[to].file == w->v[from].file;) to++;
        file_name(w, w->v[from].file, name);
        rc = write_file(w, name, from, to, NULL);
    }
    return rc;
}

static int write_index(const struct writer *w) {
    struct buf b;
    buf_init(&b, HEADER_MAX);
    buf_addf(&b, "{\"metadata\": {\"total_size\": %zu}, \"weight_map\": {", w->total);
    for (size_t i = 0; i < w->n; i++) {
        char name[64];
        file_name(w, w->v[i].file, name);
        buf_addf(&b, "%s\n\"%s\": \"%s\"", i ? "," : "", w->v[i].s.name, name);
    }
    buf_adds(&b, "}}\n");
    int rc = b.over ? err_input(w->e, "the index would pass %d bytes", HEADER_MAX)
                    : write_file(w, "model.safetensors.index.json", 0, 0, &b);
    buf_release(&b);
    return rc;
}

/* ---- the folder ---- */

static int make_folder(const char *dir, struct err *e) {
    if (mkdir(dir, 0777) && errno != EEXIST) return err_input(e, "cannot make the folder %s: %s", dir, strerror(errno));
    DIR *d = opendir(dir);
    if (!d) return err_input(e, "cannot open the folder %s: %s", dir, strerror(errno));
    bool empty = true;
    for (struct dirent *x; (x = readdir(d));)
        if (strcmp(x->d_name, ".") && strcmp(x->d_name, "..")) empty = false;
    closedir(d);
    return empty ? 0 : err_input(e, "the folder %s is not empty; choose a new one", dir);
}

static int copy_file(const struct writer *w, const char *from_dir, const char *name) {
    char *path = path_join(from_dir, name);
    char *text;
    size_t n;
    int rc = 0;
    if (file_given(path)) {
        rc = file_read(path, COPY_MAX, &text, &n, w->e);
        if (!rc) {
            rc = write_file(w, name, 0, 0, &(struct buf){.data = text, .len = n});
            free(text);
        }
    }
    free(path);
    return rc;
}

static int copy_files(const struct writer *w, const char *from_dir) {
    static const char *const names[] = {"config.json",
                                        "generation_config.json",
                                        "tokenizer.json",
                                        "tokenizer_config.json",
                                        "special_tokens_map.json",
                                        "added_tokens.json",
                                        "chat_template.jinja",
                                        "chat_template.json",
                                        "vocab.json",
                                        "merges.txt",
                                        "tokenizer.model"};
    int rc = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names && !rc; i++) rc = copy_file(w, from_dir, names[i]);
    return rc;
}

/* Byte-level BPE spells each byte by a printable character of its own: itself, or the next one from U+0100 on. */
static void add_byte_names(struct buf *b, int32_t n) {
    for (int32_t i = 0, next = 0x100; i < n; i++) {
        bool itself = (i >= 33 && i <= 126) || (i >= 161 && i <= 172) || i >= 174;
        buf_addf(b, "%s\"\\u%04x\":%d", i ? "," : "", (unsigned)(itself ? i : next++), i);
    }
}

/* For a shape that comes without a tokenizer, that of tokenizer_bytes: ids 0..255 are the bytes, any other reads " <id>". */
static int write_tokenizer(const struct writer *w) {
    struct buf b;
    buf_init(&b, COPY_MAX);
    buf_adds(&b, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[],\"normalizer\":null,\n"
                 "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":false,\"use_regex\":false},\n"
                 "\"post_processor\":null,\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":false,"
                 "\"use_regex\":false},\n"
                 "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,\"continuing_subword_prefix\":null,"
                 "\"end_of_word_suffix\":null,\"fuse_unk\":false,\"byte_fallback\":false,\"merges\":[],\"vocab\":{\n");
    add_byte_names(&b, w->c->vocab < 256 ? w->c->vocab : 256);
    for (int32_t i = 256; i < w->c->vocab; i++) buf_addf(&b, ",\"\\u0120<%d>\":%d", i, i);
    buf_adds(&b, "}}}\n");
    int rc = write_file(w, "tokenizer.json", 0, 0, &b);
    buf_release(&b);
    return rc;
}

static int complete_text(const struct writer *w) {
    char *path = path_join(w->dir, "tokenizer.json");
    int rc = file_exists(path) ? 0 : write_tokenizer(w);
    free(path);
    return rc;
}

int dummy_write(const char *model_dir, const char *out_dir, uint64_t seed, size_t shard_bytes, struct err *e) {
    struct config c;
    if (config_open(&c, model_dir, e)) return -1;
    struct writer w = {.c = &c, .dir = out_dir, .shard_bytes = shard_bytes ? shard_bytes : SIZE_MAX, .e = e};
    w.piece = mem_array(PIECE, dtype_size(c.dtype));
    dummy_init(&w.d, seed, c.dtype);
    slots_walk(NULL, &c, add_item, &w);
    int rc = make_folder(out_dir, e);
    if (!rc) rc = copy_files(&w, model_dir);
    if (!rc) rc = complete_text(&w);
    if (!rc) rc = write_shards(&w);
    if (!rc && w.n_files > 1) rc = write_index(&w);
    dummy_release(&w.d);
    free(w.piece);
    free(w.v);
    config_release(&c);
    return rc;
}
