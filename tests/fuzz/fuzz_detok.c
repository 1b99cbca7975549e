/* fuzz_detok.c: streamed text is whole characters, and together the text of all ids. */
#include "base/utf8.h"
#include "text/detok.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* 256 byte tokens and a few words. */
static struct tokenizer *fallback(void) {
    static char json[16384];
    size_t at = (size_t)snprintf(json, sizeof json,
                                 "{\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"ByteFallback\"},"
                                 "{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]},"
                                 "\"model\":{\"merges\":[],\"vocab\":{\" a\":256,\" \":257,\"\xc3\xa9\":258");
    for (int b = 0; b < 256; b++) at += (size_t)snprintf(json + at, sizeof json - at, ",\"<0x%02X>\":%d", b, b);
    snprintf(json + at, sizeof json - at, "}}}");
    return tokenizer_parse(json, strlen(json), NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct tokenizer *t[2];
    if (!t[0]) {
        t[0] = tokenizer_bytes(300);
        t[1] = fallback();
    }
    if (!size) return 0;
    const struct tokenizer *one = t[data[0] & 1];
    struct detok d;
    struct ids ids = {0};
    struct buf stream, all;
    buf_init(&stream, 1 << 20);
    buf_init(&all, 1 << 20);
    detok_init(&d, one, false);
    for (size_t i = 1; i < size; i++) {
        int32_t id = i % 7 == 6 ? 250 + data[i] % 12 : data[i];
        size_t before = stream.len;
        detok_push(&d, id, &stream);
        if (!utf8_valid(buf_str(&stream) + before, stream.len - before)) abort();
        ids_add(&ids, id);
    }
    detok_finish(&d, &stream);
    tokenizer_decode(one, ids.v, ids.n, false, &all);
    if (!utf8_valid(buf_str(&all), all.len) || stream.len != all.len ||
        memcmp(buf_str(&stream), buf_str(&all), all.len))
        abort();
    ids_release(&ids);
    buf_release(&stream);
    buf_release(&all);
    detok_release(&d);
    return 0;
}
