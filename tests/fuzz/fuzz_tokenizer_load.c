/* fuzz_tokenizer_load.c: any bytes as tokenizer.json; what is accepted must encode and decode. */
#include "text/tokenizer.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char text[] = "a b  ab\n<s> \xc3\xa9\xcc\x81 12x";
    struct err e;
    struct tokenizer *t = tokenizer_parse((const char *)data, size, &e);
    if (!t) return 0;
    struct token_scratch *s = token_scratch_new(t);
    struct ids ids = {0};
    struct buf out;
    struct text_piece p = {text, sizeof text - 1, true};
    buf_init(&out, 1 << 20);
    if (!tokenizer_encode(t, s, &(struct encode_args){&p, 1, TOK_PARSE_SPECIAL | TOK_ADD_SPECIAL, 0}, &ids, &e))
        tokenizer_decode(t, ids.v, ids.n, false, &out);
    buf_release(&out);
    ids_release(&ids);
    token_scratch_free(s);
    tokenizer_close(t);
    return 0;
}
