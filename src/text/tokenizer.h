/* tokenizer.h: text to token ids and back, exactly as the reference does it.
 *
 * The reference is the Python package `tokenizers` 0.23.2 on the same tokenizer.json: ids, and decoded text, are the
 * same for every valid text. What this library does not implement is refused by name when the file is opened, never
 * approximated. Implemented:
 *   normalizers     NFC NFD NFKC NFKD Lowercase Prepend Replace Strip Sequence
 *   pre-tokenizers  ByteLevel (last) Split Digits Metaspace Whitespace WhitespaceSplit Punctuation Sequence
 *   model           BPE with distinct ids; byte_fallback, ignore_merges, unk_token, fuse_unk; no dropout, no prefix or
 * suffix post-processors TemplateProcessing ByteLevel Sequence decoders        ByteLevel Metaspace Sequence(Replace
 * ByteFallback Fuse Strip), in that order added tokens    special, normalized, lstrip, rstrip, single_word `truncation`
 * and `padding` in the file are ignored: nothing is ever cut silently here.
 *
 * Threads: a struct tokenizer never changes after it was opened and is shared by all threads. A struct token_scratch
 * belongs to one thread and one tokenizer (about 3 MB; it remembers words) and must go first.
 *
 * Time is linear in the text (n log n within one word), stack constant, for any text. */
#ifndef MINISGL_TEXT_TOKENIZER_H
#define MINISGL_TEXT_TOKENIZER_H
#include "base/buf.h"
#include "base/err.h"
#include "text/ids.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tokenizer;
struct token_scratch;

/* Read DIR/tokenizer.json (at most 100 MiB), and names of special tokens from DIR/tokenizer_config.json and
 * DIR/special_tokens_map.json where these exist. NULL and *e: refused. */
struct tokenizer *tokenizer_open(const char *dir, struct err *e);
/* The same from memory; without names of special tokens. */
struct tokenizer *tokenizer_parse(const char *json, size_t n, struct err *e);
/* For models without a tokenizer: ids 0..255 are the bytes; any other id below `vocab` reads " <id>". */
struct tokenizer *tokenizer_bytes(int32_t vocab);
void tokenizer_close(struct tokenizer *t);

struct token_scratch *token_scratch_new(const struct tokenizer *t);
void token_scratch_free(struct token_scratch *s);

/* ---- encoding ---- */

enum {
    TOK_ADD_SPECIAL = 1,  /* add what the post-processor adds, such as a token for the beginning */
    TOK_PARSE_SPECIAL = 2 /* special tokens spelled in trusted text become those tokens; otherwise they are mere text */
};

/* A text in pieces. The pieces are one string: words and merges run across their borders. A special token is recognised
 * only where all its bytes are in trusted pieces; spelled in an untrusted one, or across a border to one, it is
 * ordinary text. Among overlapping candidates only those allowed count. Added tokens that the file does not call
 * special are always recognised, as the reference does. */
struct text_piece {
    const char *s; /* valid UTF-8; a character may not straddle two pieces of different trust */
    size_t n;
    bool trusted;
};
struct encode_args {
    const struct text_piece *piece;
    size_t n;
    unsigned flags;
    size_t max_ids; /* 0: no cap */
};
enum { ENCODE_OK = 0, ENCODE_TOO_LONG = 1 };

/* Append the tokens to *out. ENCODE_TOO_LONG: more than max_ids would be added (what *out holds is of no use), found
 * soon after the cap is passed. -1 and *e (ERR_INPUT): not valid UTF-8, more than 1 GiB, or a character for which this
 * tokenizer has no token. */
int tokenizer_encode(const struct tokenizer *t, struct token_scratch *s, const struct encode_args *a, struct ids *out,
                     struct err *e);

/* ---- decoding ---- */

/* Append the text of ids. Ids without a token add nothing. Bytes that are no UTF-8 become U+FFFD. For text that arrives
 * token by token see detok.h. */
void tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip_special, struct buf *out);
/* Append the bytes one token stands for by itself (they need not be whole characters), for log-probabilities. */
void tokenizer_token_bytes(const struct tokenizer *t, int32_t id, struct buf *out);
/* Append the token's name as tokenizer.json spells it; false: no token has this id. */
bool tokenizer_token_name(const struct tokenizer *t, int32_t id, struct buf *out);

/* ---- facts ---- */

size_t tokenizer_n_vocab(const struct tokenizer *t);                            /* the largest id + 1 */
int32_t tokenizer_id_of(const struct tokenizer *t, const char *name, size_t n); /* -1: no such token */
bool tokenizer_is_special(const struct tokenizer *t, int32_t id);
/* A text of more than k times this many bytes has more than k tokens, so that it can be refused before any work.
 * SIZE_MAX where no such bound exists (tokens that swallow white space, unknown characters that vanish). */
size_t tokenizer_longest_token_bytes(const struct tokenizer *t);

enum special_name { NAME_BOS, NAME_EOS, NAME_UNK, NAME_PAD, NAME_COUNT };
const char *tokenizer_special(const struct tokenizer *t, enum special_name which); /* NULL: none is named */
bool tokenizer_add_bos(const struct tokenizer *t); /* "add_bos_token" of tokenizer_config.json; false if absent */

#endif
