/* tok_impl.h: the inside of struct tokenizer. Internal to text/. */
#ifndef MINISGL_TEXT_TOK_IMPL_H
#define MINISGL_TEXT_TOK_IMPL_H
#include "text/added.h"
#include "text/bpe.h"
#include "text/json_pull.h"
#include "text/normalize.h"
#include "text/pretok.h"
#include "text/tokenizer.h"

#include <jansson.h>

/* How pieces become text. DECODE_JOIN: no decoder, tokens with a space between. DECODE_FUSE: the Sequence of Replace,
 * ByteFallback, Fuse and Strip. */
enum decode_kind { DECODE_JOIN, DECODE_BYTE_LEVEL, DECODE_METASPACE, DECODE_FUSE };
enum { DECODE_REPLACES = 8 };
struct decode_rules {
    enum decode_kind kind;
    struct pattern *replace[DECODE_REPLACES]; /* DECODE_FUSE: done to each token beforehand; owned */
    char *with[DECODE_REPLACES];
    size_t n_replace;
    bool byte_fallback;
    char strip[5]; /* DECODE_FUSE: up to strip_n of these go at the start of the text */
    size_t strip_n;
    char space[5];    /* DECODE_METASPACE: what stands for a space ... */
    bool drop_prefix; /* ... and is dropped in the first token */
};

/* What one id adds to the text. */
enum piece_kind { PIECE_NONE, PIECE_TEXT, PIECE_BYTE };
struct piece {
    uint32_t off, len;
    uint8_t kind;    /* PIECE_BYTE: a byte token, its byte at off */
    uint8_t skipped; /* left out when special tokens are skipped */
};

struct tokenizer {
    struct bpe bpe;
    struct norm_step norm[NORM_STEPS];
    size_t n_norm;
    struct pre_step pre[PRE_STEPS];
    size_t n_pre;
    struct added_token *added; /* owned */
    size_t n_added;
    struct vocab names; /* of the added tokens; here an "id" is an index of added[] */
    struct added_set *plain, *normalized;
    struct ids prefix, suffix; /* what TOK_ADD_SPECIAL adds */
    struct decode_rules dec;
    struct piece *piece; /* [n_vocab] */
    struct buf text;     /* of the pieces */
    size_t n_vocab, longest;
    char *name[NAME_COUNT];
    bool add_bos;
};

struct tokenizer *tokenizer_blank(void);
/* The parts of tokenizer.json other than the model. 0 or -1. */
int load_normalizer(struct tokenizer *t, const json_t *j, struct err *e);
int load_pre_tokenizer(struct tokenizer *t, const json_t *j, struct err *e);
int load_post_processor(struct tokenizer *t, const json_t *j, struct err *e);
int load_decoder(struct tokenizer *t, const json_t *j, struct err *e);
int load_added(struct tokenizer *t, const json_t *j, struct err *e);     /* after the model and the normalizer */
int load_model(struct tokenizer *t, struct json_pull *j, struct err *e); /* after the pre-tokenizer */
int load_pieces(struct tokenizer *t, struct err *e);                     /* last */
int load_names(struct tokenizer *t, const char *dir, struct err *e);

#endif
