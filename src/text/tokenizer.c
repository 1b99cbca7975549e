/* tokenizer.c: see tokenizer.h. A tokenizer is constant once loaded; a scratch belongs to one thread. */
#include "base/file.h"
#include "text/detok.h"
#include "text/tok_impl.h"
#include "text/unicode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TEXT = 1 << 30, MAX_NAMES_FILE = 16 << 20 };

struct tokenizer *tokenizer_blank(void) {
    struct tokenizer *t = mem_zalloc(1, sizeof *t);
    bpe_init(&t->bpe, false);
    vocab_init(&t->names, false);
    t->plain = added_set_new();
    t->normalized = added_set_new();
    buf_init(&t->text, UINT32_MAX);
    return t;
}

void tokenizer_close(struct tokenizer *t) {
    if (!t) return;
    added_set_free(t->plain);
    added_set_free(t->normalized);
    for (size_t i = 0; i < t->n_added; i++) free(t->added[i].content);
    free(t->added);
    vocab_release(&t->names);
    norm_release(t->norm, t->n_norm);
    pre_release(t->pre, t->n_pre);
    ids_release(&t->prefix);
    ids_release(&t->suffix);
    for (size_t i = 0; i < DECODE_REPLACES; i++) {
        pattern_free(t->dec.replace[i]);
        free(t->dec.with[i]);
    }
    free(t->piece);
    buf_release(&t->text);
    for (int i = 0; i < NAME_COUNT; i++) free(t->name[i]);
    bpe_release(&t->bpe);
    free(t);
}

/* ---- encoding ---- */

struct token_scratch {
    struct buf text, mask; /* the pieces put together */
    struct norm_scratch norm;
    struct pretok_scratch pre;
};

struct token_scratch *token_scratch_new(const struct tokenizer *t) {
    (void)t;
    struct token_scratch *s = mem_zalloc(1, sizeof *s);
    buf_init(&s->text, MAX_TEXT);
    buf_init(&s->mask, MAX_TEXT);
    norm_scratch_init(&s->norm);
    pretok_scratch_init(&s->pre);
    return s;
}

void token_scratch_free(struct token_scratch *s) {
    if (!s) return;
    buf_release(&s->text);
    buf_release(&s->mask);
    norm_scratch_release(&s->norm);
    pretok_scratch_release(&s->pre);
    free(s);
}

/* The ordinary stretches of normalised text go to the pre-tokenizers. */
static int encode_normalized(const struct tokenizer *t, struct token_scratch *s, struct masked text, bool special,
                             bool first) {
    struct added_iter it = {.set = t->normalized, .text = text, .special = special};
    const struct pretok p = {t->pre, t->n_pre, &t->bpe};
    const struct added_token *a;
    size_t start, end;
    while (added_next(&it, &start, &end, &a)) {
        if (a) {
            ids_add(s->pre.out, a->id);
            continue;
        }
        struct pretok_text piece = {text.s + start, end - start, text.n - end, first && start == 0};
        int rc = pretok_run(&p, &s->pre, piece);
        if (rc) return rc;
    }
    return s->pre.out->n > s->pre.max_ids;
}

/* Added tokens first, in the text as given; then what is between them is normalised and searched again. */
static int encode_text(const struct tokenizer *t, struct token_scratch *s, struct masked text, bool special) {
    struct added_iter it = {.set = t->plain, .text = text, .special = special};
    const struct added_token *a;
    size_t start, end;
    while (added_next(&it, &start, &end, &a)) {
        if (a) {
            ids_add(s->pre.out, a->id);
            continue;
        }
        struct masked in = {text.s + start, text.mask ? text.mask + start : NULL, end - start};
        if (normalize(t->norm, t->n_norm, &s->norm, in, &in, s->pre.e)) return -1;
        int rc = encode_normalized(t, s, in, special, start == 0);
        if (rc) return rc;
    }
    return 0;
}

/* The pieces as one text. A mask is only made if some special token could be at stake. */
static int gather(struct token_scratch *s, const struct encode_args *a, struct masked *out, bool *special,
                  struct err *e) {
    size_t all = 0, trusted = 0;
    *special = false;
    for (size_t i = 0; i < a->n; i++) {
        if (a->piece[i].n > MAX_TEXT || (all += a->piece[i].n) > MAX_TEXT)
            return err_input(e, "the text has more than %d bytes", MAX_TEXT);
        if (a->piece[i].trusted) trusted += a->piece[i].n;
    }
    *special = a->flags & TOK_PARSE_SPECIAL && trusted;
    *out = (struct masked){a->n ? a->piece[0].s : "", NULL, all};
    if (a->n > 1) {
        buf_reset(&s->text);
        for (size_t i = 0; i < a->n; i++) buf_add(&s->text, a->piece[i].s, a->piece[i].n);
        out->s = buf_str(&s->text);
    }
    if (*special && trusted < all) {
        buf_reset(&s->mask);
        buf_room(&s->mask, all);
        for (size_t i = 0; i < a->n; i++) {
            memset(s->mask.data + s->mask.len, a->piece[i].trusted, a->piece[i].n);
            s->mask.len += a->piece[i].n;
        }
        out->mask = (const uint8_t *)buf_str(&s->mask);
    }
    return uc_valid(out->s, all) ? 0 : err_input(e, "the text is not valid UTF-8");
}

int tokenizer_encode(const struct tokenizer *t, struct token_scratch *s, const struct encode_args *a, struct ids *out,
                     struct err *e) {
    struct masked text;
    bool special;
    if (gather(s, a, &text, &special, e)) return -1;
    size_t from = out->n;
    if (a->flags & TOK_ADD_SPECIAL)
        for (size_t i = 0; i < t->prefix.n; i++) ids_add(out, t->prefix.v[i]);
    s->pre.out = out;
    s->pre.e = e;
    s->pre.max_ids = a->max_ids ? from + a->max_ids : SIZE_MAX;
    int rc = encode_text(t, s, text, special);
    if (rc) return rc;
    if (a->flags & TOK_ADD_SPECIAL)
        for (size_t i = 0; i < t->suffix.n; i++) ids_add(out, t->suffix.v[i]);
    return out->n > s->pre.max_ids ? ENCODE_TOO_LONG : ENCODE_OK;
}

/* ---- pieces: what each id adds to the text ---- */

/* "<0x41>": the byte, or -1. The reference lets "+F" pass for a number, so we do. */
static int byte_token(const char *s, size_t n) {
    char *end, digits[3];
    if (n != 6 || memcmp(s, "<0x", 3) || s[5] != '>') return -1;
    memcpy(digits, s + 3, 2);
    digits[2] = 0;
    if (!strchr("0123456789abcdefABCDEF+", digits[0]) || !strchr("0123456789abcdefABCDEF", digits[1])) return -1;
    long v = strtol(digits, &end, 16);
    return *end || !digits[0] || !digits[1] ? -1 : (int)v;
}

static int replace_all(const struct decode_rules *d, struct buf *name, struct buf *tmp, struct err *e) {
    struct buf subject;
    buf_init(&subject, SIZE_MAX / 4);
    int r = 0;
    for (size_t k = 0; k < d->n_replace && r >= 0; k++) {
        struct pattern_iter it;
        size_t from = 0, end;
        bool match;
        buf_reset(tmp);
        pattern_start(&it, d->replace[k], buf_str(name), name->len, &subject);
        for (; (r = pattern_next(&it, &end, &match, e)) > 0; from = end) {
            if (match)
                buf_adds(tmp, d->with[k]);
            else
                buf_add(tmp, name->data + from, end - from);
        }
        struct buf swap = *name;
        *name = *tmp;
        *tmp = swap;
    }
    buf_release(&subject);
    return r;
}

/* The byte alphabet undone, where the whole name is in it. */
static void undo_alphabet(struct buf *name, struct buf *tmp) {
    buf_reset(tmp);
    for (size_t i = 0, w; i < name->len; i += w) {
        int b = byte_alphabet_get(uc_get(name->data + i, &w));
        if (b < 0) return;
        buf_addc(tmp, (char)b);
    }
    struct buf swap = *name;
    *name = *tmp;
    *tmp = swap;
}

/* What the decoder makes of a token by itself, from its name in *name. */
static int piece_set(struct tokenizer *t, size_t id, struct buf *name, struct buf *tmp, struct err *e) {
    struct piece *p = &t->piece[id];
    *p = (struct piece){.off = (uint32_t)t->text.len, .kind = PIECE_TEXT, .skipped = p->skipped};
    if (t->dec.kind == DECODE_BYTE_LEVEL) undo_alphabet(name, tmp);
    if (t->dec.kind == DECODE_FUSE && replace_all(&t->dec, name, tmp, e) < 0) return -1;
    int byte = t->dec.byte_fallback ? byte_token(buf_str(name), name->len) : -1;
    if (byte >= 0) {
        p->kind = PIECE_BYTE;
        buf_addc(&t->text, (char)byte);
    } else {
        buf_add(&t->text, buf_str(name), name->len);
    }
    p->len = (uint32_t)(t->text.len - p->off);
    return t->text.over ? err_input(e, "the vocabulary has more than 4 GiB of text") : 0;
}

/* A model's token. Byte-level names are kept undone, so nothing is left to do. */
static int piece_model(struct tokenizer *t, size_t id, struct buf *name, struct buf *tmp, struct err *e) {
    const struct vocab *v = &t->bpe.vocab;
    if (v->byte_level && t->dec.kind == DECODE_BYTE_LEVEL) {
        t->piece[id] = (struct piece){(uint32_t)t->text.len, v->tok[id].len, PIECE_TEXT, false};
        return buf_add(&t->text, vocab_bytes(v, id), v->tok[id].len);
    }
    buf_reset(name);
    vocab_text(v, id, name);
    return piece_set(t, id, name, tmp, e);
}

/* An added token is searched for, and shown, as the normalizer leaves it. One whose name so changed is no longer among
 * the names of special tokens, and the reference then does not skip it. */
static int piece_added(struct tokenizer *t, const struct added_token *a, struct norm_scratch *ns, struct buf *name,
                       struct buf *tmp, struct err *e) {
    struct masked m = {a->content, NULL, a->n};
    if (a->normalized && normalize(t->norm, t->n_norm, ns, m, &m, e)) return -1;
    added_set_add(a->normalized ? t->normalized : t->plain, a, m.s, m.n);
    int32_t k = vocab_find_bytes(&t->names, m.s, m.n);
    t->piece[a->id].skipped = k >= 0 && t->added[k].special;
    buf_reset(name);
    buf_add(name, m.s, m.n);
    return piece_set(t, (size_t)a->id, name, tmp, e);
}

/* See tokenizer_longest_token_bytes. Normal forms shorten a text to a third at most. */
static void find_longest(struct tokenizer *t) {
    const struct bpe *b = &t->bpe;
    size_t longest = b->vocab.longest, factor = 1;
    bool bound = b->all_bytes && (b->vocab.byte_level || b->byte_fallback);
    for (size_t i = 0; i < t->n_added; i++) {
        if (t->added[i].n > longest) longest = t->added[i].n;
        bound &= !t->added[i].lstrip && !t->added[i].rstrip;
    }
    for (size_t i = 0; i < t->n_norm; i++) {
        const struct norm_step *s = &t->norm[i];
        if (s->kind == NORM_FORM || s->kind == NORM_LOWERCASE) factor *= 3;
        if (s->kind == NORM_STRIP || (s->kind == NORM_REPLACE && pattern_shortens(s->pattern, s->text_n)))
            bound = false;
    }
    for (size_t i = 0; i < t->n_pre; i++) bound &= t->pre[i].behavior != SPLIT_REMOVED;
    t->longest = bound ? longest * factor : SIZE_MAX;
}

int load_pieces(struct tokenizer *t, struct err *e) {
    struct buf name, tmp;
    struct norm_scratch ns;
    int rc = -1;
    buf_init(&name, SIZE_MAX / 4);
    buf_init(&tmp, SIZE_MAX / 4);
    norm_scratch_init(&ns);
    t->n_vocab = t->bpe.vocab.n_ids;
    for (size_t i = 0; i < t->n_added; i++)
        if ((size_t)t->added[i].id >= t->n_vocab) t->n_vocab = (size_t)t->added[i].id + 1;
    t->piece = mem_zalloc(t->n_vocab, sizeof *t->piece);
    for (size_t i = 0; i < t->bpe.vocab.n_ids; i++)
        if (vocab_has(&t->bpe.vocab, i) && piece_model(t, i, &name, &tmp, e)) goto out;
    for (size_t i = 0; i < t->n_added; i++)
        if (piece_added(t, &t->added[i], &ns, &name, &tmp, e)) goto out;
    find_longest(t);
    rc = 0;
out:
    buf_release(&name);
    buf_release(&tmp);
    norm_scratch_release(&ns);
    return rc;
}

struct tokenizer *tokenizer_bytes(int32_t vocab) {
    struct tokenizer *t = tokenizer_blank();
    bpe_release(&t->bpe);
    bpe_init(&t->bpe, true);
    t->dec.kind = DECODE_BYTE_LEVEL;
    t->n_vocab = vocab > 0 ? (size_t)vocab : 0;
    t->piece = mem_zalloc(t->n_vocab, sizeof *t->piece);
    for (size_t i = 0; i < t->n_vocab; i++) {
        char name[24] = {(char)i};
        size_t n = i < 256 ? 1 : (size_t)snprintf(name, sizeof name, " <%zu>", i);
        if (i < 256) vocab_add(&t->bpe.vocab, (struct vocab_key){name, 1, VOCAB_MAPPED}, (uint32_t)i);
        t->piece[i] = (struct piece){(uint32_t)t->text.len, (uint32_t)n, PIECE_TEXT, false};
        buf_add(&t->text, name, n);
    }
    bpe_build(&t->bpe, NULL, 0);
    t->longest = 1;
    return t;
}

/* ---- facts ---- */

static const struct added_token *added_of(const struct tokenizer *t, int32_t id) {
    for (size_t i = t->n_added; i-- > 0;)
        if (t->added[i].id == id) return &t->added[i];
    return NULL;
}

void tokenizer_token_bytes(const struct tokenizer *t, int32_t id, struct buf *out) {
    if (id < 0 || (size_t)id >= t->n_vocab) return;
    buf_add(out, buf_str(&t->text) + t->piece[id].off, t->piece[id].len);
}

bool tokenizer_token_name(const struct tokenizer *t, int32_t id, struct buf *out) {
    if (id < 0 || (size_t)id >= t->n_vocab || t->piece[id].kind == PIECE_NONE) return false;
    const struct added_token *a = added_of(t, id);
    if (a)
        buf_add(out, a->content, a->n);
    else if (vocab_has(&t->bpe.vocab, (size_t)id))
        vocab_text(&t->bpe.vocab, (size_t)id, out);
    else
        tokenizer_token_bytes(t, id, out);
    return true;
}

size_t tokenizer_n_vocab(const struct tokenizer *t) { return t->n_vocab; }

int32_t tokenizer_id_of(const struct tokenizer *t, const char *name, size_t n) {
    int32_t k = vocab_find_bytes(&t->names, name, n);
    if (k >= 0) return t->added[k].id;
    if (n > VOCAB_MAX_TOKEN || !uc_valid(name, n)) return -1;
    char *tmp = mem_alloc(n);
    int32_t id = vocab_find(&t->bpe.vocab, vocab_key(&t->bpe.vocab, name, n, tmp));
    free(tmp);
    return id;
}

bool tokenizer_is_special(const struct tokenizer *t, int32_t id) {
    const struct added_token *a = added_of(t, id);
    return a && a->special;
}

size_t tokenizer_longest_token_bytes(const struct tokenizer *t) { return t->longest; }
const char *tokenizer_special(const struct tokenizer *t, enum special_name which) { return t->name[which]; }
bool tokenizer_add_bos(const struct tokenizer *t) { return t->add_bos; }

/* ---- names of special tokens ---- */

/* A string, or an object with its "content". */
static void take_name(struct tokenizer *t, int which, const json_t *v) {
    const char *s = json_is_object(v) ? json_string_value(json_object_get(v, "content")) : json_string_value(v);
    if (s && !t->name[which]) t->name[which] = mem_strdup(s);
}

static int names_from(struct tokenizer *t, const char *path, struct err *e) {
    static const char *const key[NAME_COUNT] = {"bos_token", "eos_token", "unk_token", "pad_token"};
    char *text;
    size_t n;
    if (!file_given(path)) return 0;
    if (file_read(path, MAX_NAMES_FILE, &text, &n, e)) return -1;
    json_error_t je;
    json_t *j = json_loadb(text, n, JSON_ALLOW_NUL, &je);
    free(text);
    if (!j) return err_input(e, "%s: line %d: %s", path, je.line, je.text);
    for (int i = 0; i < NAME_COUNT; i++) take_name(t, i, json_object_get(j, key[i]));
    if (json_is_true(json_object_get(j, "add_bos_token"))) t->add_bos = true;
    json_decref(j);
    return 0;
}

int load_names(struct tokenizer *t, const char *dir, struct err *e) {
    static const char *const file[] = {"tokenizer_config.json", "special_tokens_map.json"};
    for (int i = 0; i < 2; i++) {
        char *path = path_join(dir, file[i]);
        int rc = names_from(t, path, e);
        free(path);
        if (rc) return -1;
    }
    return 0;
}
