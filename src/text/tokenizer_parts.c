/* tokenizer_parts.c: the small parts of tokenizer.json, from JSON trees. Runs on the loading thread. Every type that is
 * not implemented is refused by name; Sequences may nest as deep as the JSON reader lets them. */
#include "base/utf8.h"
#include "text/tok_impl.h"
#include "text/unicode.h"

#include <stdlib.h>
#include <string.h>

static const char *type_of(const json_t *j) {
    const char *s = json_string_value(json_object_get(j, "type"));
    return s ? s : "(none)";
}

static bool flag(const json_t *j, const char *key, bool otherwise) {
    const json_t *v = json_object_get(j, key);
    return json_is_boolean(v) ? json_is_true(v) : otherwise;
}

static int unsupported(const char *part, const json_t *j, struct err *e) {
    return err_input(e, "%s \"%.100s\" is not supported", part, type_of(j));
}

/* Do `each` to the members of a Sequence. */
typedef int loader(struct tokenizer *t, const json_t *j, struct err *e);
static int sequence(struct tokenizer *t, const json_t *j, const char *key, loader *each, struct err *e) {
    const json_t *list = json_object_get(j, key);
    if (!json_is_array(list)) return err_input(e, "a Sequence without its list \"%s\"", key);
    for (size_t i = 0; i < json_array_size(list); i++)
        if (each(t, json_array_get(list, i), e)) return -1;
    return 0;
}

/* {"String": ...} or {"Regex": ...} */
static struct pattern *pattern_of(const json_t *j, struct err *e) {
    const json_t *p = json_object_get(j, "pattern"), *s = json_object_get(p, "String"),
                 *r = json_object_get(p, "Regex");
    if (json_is_string(r)) return pattern_regex(json_string_value(r), json_string_length(r), e);
    if (json_is_string(s) && json_string_length(s)) return pattern_string(json_string_value(s), json_string_length(s));
    err_input(e, "%s has a pattern that is neither a Regex nor a String with something in it", type_of(j));
    return NULL;
}

static int one_char(const json_t *v, char out[5], const char *what, struct err *e) {
    uint32_t c;
    size_t n = json_string_length(v);
    if (!json_is_string(v) || !n || utf8_get(json_string_value(v), n, &c) != n)
        return err_input(e, "%s must be one character", what);
    memcpy(out, json_string_value(v), n);
    out[n] = 0;
    return 0;
}

/* ---- normalizer ---- */

static int norm_text(struct norm_step *s, const json_t *v, struct err *e) {
    if (!json_is_string(v)) return err_input(e, "a normalizer lacks the text it puts in");
    s->text_n = json_string_length(v);
    s->text = mem_strndup(json_string_value(v), s->text_n);
    return 0;
}

int load_normalizer(struct tokenizer *t, const json_t *j, struct err *e) {
    static const struct {
        const char *name;
        struct norm_step step;
    } plain[] = {{"NFC", {.form = UC_NFC}},
                 {"NFKC", {.form = UC_NFKC}},
                 {"NFD", {.form = UC_NFD}},
                 {"NFKD", {.form = UC_NFKD}},
                 {"Lowercase", {.kind = NORM_LOWERCASE}}};
    const char *type = type_of(j);
    if (!strcmp(type, "Sequence")) return sequence(t, j, "normalizers", load_normalizer, e);
    if (t->n_norm == NORM_STEPS) return err_input(e, "more than %d normalizers", NORM_STEPS);
    struct norm_step *s = &t->norm[t->n_norm++];
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (!strcmp(type, plain[i].name)) return *s = plain[i].step, 0;
    if (!strcmp(type, "Prepend")) return s->kind = NORM_PREPEND, norm_text(s, json_object_get(j, "prepend"), e);
    if (!strcmp(type, "Replace")) {
        s->kind = NORM_REPLACE;
        s->pattern = pattern_of(j, e);
        return s->pattern ? norm_text(s, json_object_get(j, "content"), e) : -1;
    }
    if (!strcmp(type, "Strip")) {
        *s = (struct norm_step){
            .kind = NORM_STRIP, .left = flag(j, "strip_left", true), .right = flag(j, "strip_right", true)};
        return 0;
    }
    return unsupported("normalizer", j, e);
}

/* ---- pre-tokenizer ---- */

static int pre_behavior(struct pre_step *s, const json_t *v, struct err *e) {
    static const char *const name[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    for (int i = 0; i < 5; i++)
        if (json_is_string(v) && !strcmp(json_string_value(v), name[i])) return s->behavior = (enum split_behavior)i, 0;
    return err_input(e, "a pre-tokenizer has an unknown \"behavior\"");
}

static int pre_metaspace(struct pre_step *s, const json_t *j, struct err *e) {
    static const char *const name[] = {"always", "first", "never"};
    const char *scheme = json_string_value(json_object_get(j, "prepend_scheme"));
    s->kind = PRE_METASPACE;
    if (one_char(json_object_get(j, "replacement"), s->replacement, "Metaspace's \"replacement\"", e)) return -1;
    int k = 0;
    if (scheme)
        for (k = 0; k < 3 && strcmp(scheme, name[k]); k++) {
        }
    if (k == 3) return err_input(e, "Metaspace has an unknown \"prepend_scheme\"");
    if (!flag(j, "add_prefix_space", true) && k != PREPEND_NEVER)
        return err_input(e, "Metaspace's \"add_prefix_space\" and \"prepend_scheme\" disagree");
    s->prepend = (enum prepend_scheme)k;
    s->behavior = SPLIT_MERGED_WITH_NEXT;
    if (flag(j, "split", true)) s->pattern = pattern_string(s->replacement, strlen(s->replacement));
    return 0;
}

int load_pre_tokenizer(struct tokenizer *t, const json_t *j, struct err *e) {
    const char *type = type_of(j);
    if (!strcmp(type, "Sequence")) return sequence(t, j, "pretokenizers", load_pre_tokenizer, e);
    if (t->n_pre == PRE_STEPS) return err_input(e, "more than %d pre-tokenizers", PRE_STEPS);
    if (t->n_pre && t->pre[t->n_pre - 1].kind == PRE_BYTE_LEVEL)
        return err_input(e, "pre-tokenizer ByteLevel is only supported as the last one");
    struct pre_step *s = &t->pre[t->n_pre++];
    *s = (struct pre_step){.behavior = SPLIT_ISOLATED};
    if (!strcmp(type, "ByteLevel")) {
        s->kind = PRE_BYTE_LEVEL;
        s->prefix_space = flag(j, "add_prefix_space", true);
        if (flag(j, "use_regex", true)) s->pattern = pattern_gpt2();
        return 0;
    }
    if (!strcmp(type, "Split")) {
        s->invert = flag(j, "invert", false);
        s->pattern = pattern_of(j, e);
        return s->pattern ? pre_behavior(s, json_object_get(j, "behavior"), e) : -1;
    }
    if (!strcmp(type, "Digits")) {
        s->behavior = flag(j, "individual_digits", false) ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS;
        return s->pattern = pattern_class(PATTERN_NUMERIC), 0;
    }
    if (!strcmp(type, "Punctuation")) {
        s->pattern = pattern_class(PATTERN_PUNCT);
        const json_t *v = json_object_get(j, "behavior");
        return v ? pre_behavior(s, v, e) : 0;
    }
    if (!strcmp(type, "WhitespaceSplit") || !strcmp(type, "Whitespace")) {
        s->invert = type[10] == 0; /* Whitespace: what is between its matches goes; they stay */
        s->behavior = SPLIT_REMOVED;
        return s->pattern = pattern_class(s->invert ? PATTERN_WORDS : PATTERN_SPACE), 0;
    }
    if (!strcmp(type, "Metaspace")) return pre_metaspace(s, j, e);
    return unsupported("pre-tokenizer", j, e);
}

/* ---- post-processor ---- */

static int template_ids(const json_t *specials, const char *name, struct ids *to, struct err *e) {
    const json_t *ids = json_object_get(json_object_get(specials, name), "ids");
    if (!json_is_array(ids)) return err_input(e, "TemplateProcessing does not say which ids \"%.100s\" has", name);
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *id = json_array_get(ids, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > VOCAB_MAX_ID)
            return err_input(e, "TemplateProcessing gives \"%.100s\" something that is no id", name);
        ids_add(to, (int32_t)json_integer_value(id));
    }
    return 0;
}

static int load_template(struct tokenizer *t, const json_t *j, struct err *e) {
    const json_t *single = json_object_get(j, "single"), *specials = json_object_get(j, "special_tokens");
    bool text = false;
    if (t->prefix.n || t->suffix.n) return err_input(e, "more than one TemplateProcessing");
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *p = json_array_get(single, i), *seq = json_object_get(p, "Sequence");
        const char *special = json_string_value(json_object_get(json_object_get(p, "SpecialToken"), "id"));
        const char *which = json_string_value(json_object_get(seq, "id"));
        if (special) {
            if (template_ids(specials, special, text ? &t->suffix : &t->prefix, e)) return -1;
        } else if (which && !strcmp(which, "A") && !text) {
            text = true;
        } else {
            return err_input(e, "TemplateProcessing: \"single\" is not special tokens around one \"A\"");
        }
    }
    return text ? 0 : err_input(e, "TemplateProcessing: \"single\" has no place for the text");
}

int load_post_processor(struct tokenizer *t, const json_t *j, struct err *e) {
    const char *type = type_of(j);
    if (!strcmp(type, "Sequence")) return sequence(t, j, "processors", load_post_processor, e);
    if (!strcmp(type, "ByteLevel")) return 0; /* changes offsets only */
    if (!strcmp(type, "TemplateProcessing")) return load_template(t, j, e);
    return unsupported("post-processor", j, e);
}

/* ---- decoder ---- */

static int decode_metaspace(struct decode_rules *d, const json_t *j, struct err *e) {
    const char *scheme = json_string_value(json_object_get(j, "prepend_scheme"));
    d->kind = DECODE_METASPACE;
    d->drop_prefix = !(scheme && !strcmp(scheme, "never"));
    return one_char(json_object_get(j, "replacement"), d->space, "Metaspace's \"replacement\"", e);
}

static int decode_strip(struct decode_rules *d, const json_t *j, struct err *e) {
    json_int_t start = json_integer_value(json_object_get(j, "start")),
               stop = json_integer_value(json_object_get(j, "stop"));
    if (stop != 0 || start < 0) return err_input(e, "decoder Strip is only supported at the start of the text");
    if (one_char(json_object_get(j, "content"), d->strip, "Strip's \"content\"", e)) return -1;
    d->strip_n = (size_t)start;
    return 0;
}

/* One step of DECODE_FUSE; *stage keeps the order Replace, ByteFallback, Fuse, Strip. */
static int decode_step(struct decode_rules *d, const json_t *j, int *stage, struct err *e) {
    static const char *const order[] = {"Replace", "ByteFallback", "Fuse", "Strip"};
    const char *type = type_of(j);
    int k = 0;
    while (k < 4 && strcmp(type, order[k])) k++;
    if (k == 4) return unsupported("decoder", j, e);
    if (k < *stage || (k == 3 && *stage != 3))
        return err_input(e, "decoder %s is not supported here; the order is Replace, ByteFallback, Fuse, Strip", type);
    *stage = k ? k + 1 : 0;
    if (k == 1) d->byte_fallback = true;
    if (k == 3) return decode_strip(d, j, e);
    if (k) return 0;
    if (d->n_replace == DECODE_REPLACES) return err_input(e, "more than %d decoders Replace", DECODE_REPLACES);
    const json_t *content = json_object_get(j, "content");
    if (!json_is_string(content)) return err_input(e, "decoder Replace has no \"content\"");
    d->replace[d->n_replace] = pattern_of(j, e);
    if (!d->replace[d->n_replace]) return -1;
    d->with[d->n_replace++] = mem_strndup(json_string_value(content), json_string_length(content));
    return 0;
}

int load_decoder(struct tokenizer *t, const json_t *j, struct err *e) {
    struct decode_rules *d = &t->dec;
    const json_t *list = json_object_get(j, "decoders"), *one = j;
    int stage = 0;
    bool seq = !strcmp(type_of(j), "Sequence");
    if (seq && !json_is_array(list)) return err_input(e, "a Sequence without its list \"decoders\"");
    if (seq && json_array_size(list) == 1) one = json_array_get(list, 0);
    if (!strcmp(type_of(one), "ByteLevel")) return d->kind = DECODE_BYTE_LEVEL, 0;
    if (!strcmp(type_of(one), "Metaspace")) return decode_metaspace(d, one, e);
    d->kind = DECODE_FUSE;
    if (!seq) return decode_step(d, j, &stage, e);
    for (size_t i = 0; i < json_array_size(list); i++)
        if (decode_step(d, json_array_get(list, i), &stage, e)) return -1;
    return 0;
}

/* ---- added tokens ---- */

/* The id the reference gives: that of the model's token of this name, else the next one behind the model's tokens. The
 * id in the file must agree, for the weights were trained with it. */
static int added_id(struct tokenizer *t, const struct added_token *a, json_int_t stated, int32_t *next, struct err *e) {
    const struct vocab *v = &t->bpe.vocab;
    char *tmp = mem_alloc(a->n);
    int32_t id = vocab_find(v, vocab_key(v, a->content, a->n, tmp));
    free(tmp);
    bool fresh = id < 0;
    if (fresh) id = (*next)++;
    if (stated != id || (fresh && vocab_has(v, (size_t)id)))
        return err_input(e, "added token \"%.100s\" has id %lld; expected was %d (ids must have no gaps)", a->content,
                         (long long)stated, id);
    return id;
}

static int load_one_added(struct tokenizer *t, const json_t *j, int32_t *next, struct err *e) {
    const json_t *content = json_object_get(j, "content"), *id = json_object_get(j, "id");
    size_t n = json_string_length(content);
    if (!json_is_string(content) || !json_is_integer(id)) return err_input(e, "an added token without content or id");
    if (!n) return 0;
    if (n > ADDED_MAX_BYTES)
        return err_input(e, "an added token of %zu bytes; at most %d are accepted", n, ADDED_MAX_BYTES);
    struct added_token a = {.special = flag(j, "special", false),
                            .normalized = flag(j, "normalized", true),
                            .lstrip = flag(j, "lstrip", false),
                            .rstrip = flag(j, "rstrip", false),
                            .single_word = flag(j, "single_word", false),
                            .content = (char *)json_string_value(content),
                            .n = n};
    if (vocab_add(&t->names, (struct vocab_key){a.content, n, VOCAB_MAPPED}, (uint32_t)t->n_added))
        return err_input(e, "added token \"%.100s\" occurs twice", a.content);
    a.id = added_id(t, &a, json_integer_value(id), next, e);
    if (a.id < 0) return -1;
    a.content = mem_strndup(a.content, n);
    t->added[t->n_added++] = a;
    return 0;
}

int load_added(struct tokenizer *t, const json_t *j, struct err *e) {
    size_t n = json_array_size(j);
    int32_t next = (int32_t)t->bpe.vocab.n;
    if (!json_is_array(j)) return err_input(e, "\"added_tokens\" is not an array");
    t->added = mem_array(n, sizeof *t->added);
    for (size_t i = 0; i < n; i++)
        if (load_one_added(t, json_array_get(j, i), &next, e)) return -1;
    return 0;
}
