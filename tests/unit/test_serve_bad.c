/* test_serve_bad.c: bad requests, one after the other: each gets its status and an error object, and the same process
 * answers a good request right after it. */
#include "serve_rig.h"

static struct rig *rig;

static int open_rig(void **state) {
    (void)state;
    rig = rig_open(&(struct serve_args){.limits = {.body = 9 << 20, .bodies = 12 << 20}});
    return 0;
}

static int close_rig(void **state) {
    (void)state;
    rig_close(rig);
    return 0;
}

/* ---- A: framing ---- */

#define POST "POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
#define GOOD "{\"prompt\":\"ab\"}" /* 15 bytes */

struct raw {
    const char *bytes;
    int status; /* 0: the connection just closes */
    bool stays; /* the connection is kept */
};

static void framing(void **state) {
    (void)state;
    static const struct raw rows[] = {
        {"GET / HTTP/1.1\r\n\r\n", 400, false},
        {"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, false},
        {"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, false},
        {"GET /\r\n\r\n", 400, false},
        {"GET / HTTP/0.9\r\nHost: t\r\n\r\n", 505, false},
        {"GET / HTTP/1.2\r\nHost: t\r\n\r\n", 505, false},
        {"GET / HTTP/2.0\r\nHost: t\r\n\r\n", 505, false},
        {"GET / http/1.1\r\nHost: t\r\n\r\n", 400, false},
        {"GET / HTTP/1.1 \r\nHost: t\r\n\r\n", 400, false},
        {"GET  / HTTP/1.1\r\nHost: t\r\n\r\n", 400, false},
        {"G\x01T / HTTP/1.1\r\nHost: t\r\n\r\n", 400, false},
        {"GET /\x80 HTTP/1.1\r\nHost: t\r\n\r\n", 400, false},
        {"GET x HTTP/1.1\r\nHost: t\r\n\r\n", 400, false},
        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, false},
        {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, false},
        {"\r\nGET / HTTP/1.1\r\nHost: t\r\n\r\n", 400, false},
        {"GET / HTTP/1.1\nHost: t\n\n", 400, false},
        {"GET / HTTP/1.1\r\nHost: t\nX: y\r\n\r\n", 400, false},
        {"GET / HTTP/1.1\r\nHost: t\rX: y\r\n\r\n", 400, false},
        {"GET / HTTP/1.1\r\nHost: t\r\nX: a\r\n b\r\n\r\n", 400, false},
        {"GET / HTTP/1.1\r\nHost : t\r\n\r\n", 400, false},
        {"GET / HTTP/1.1\r\nHost: t\r\n: x\r\n\r\n", 400, false},
        {"GET / HTTP/1.1\r\nHost: t\r\nX\r\n\r\n", 400, false},
        {"GET / HTTP/1.1\r\nHost: t\r\nX: \x01\r\n\r\n", 400, false},
        {"GET / HTTP/1.1\r\nHost: t\r\nX: \x7f\r\n\r\n", 400, false},
        {POST "Content-Length: -1\r\n\r\n" GOOD, 400, false},
        {POST "Content-Length: +15\r\n\r\n" GOOD, 400, false},
        {POST "Content-Length: 0x0f\r\n\r\n" GOOD, 400, false},
        {POST "Content-Length: 015\r\n\r\n" GOOD, 400, false},
        {POST "Content-Length: 1 5\r\n\r\n" GOOD, 400, false},
        {POST "Content-Length: 15, 15\r\n\r\n" GOOD, 400, false},
        {POST "Content-Length:\r\n\r\n" GOOD, 400, false},
        {POST "Content-Length: 15\r\nContent-Length: 15\r\n\r\n" GOOD, 400, false},
        {POST "Content-Length: 15\r\nContent-Length: 16\r\n\r\n" GOOD, 400, false},
        {POST "Content-Length: 9223372036854775808\r\n\r\n" GOOD, 400, false},
        {POST "Content-Length: 18446744073709551617\r\n\r\n" GOOD, 400, false},
        {POST "Content-Length: 99999999\r\n\r\n", 413, false},
        {POST "Content-Length: 99999999\r\nExpect: 100-continue\r\n\r\n", 413, false},
        {POST "Content-Length: 15\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, false},
        {POST "Transfer-Encoding: chunked\r\nContent-Length: 15\r\n\r\n0\r\n\r\n", 400, false},
        {POST "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400, false},
        {POST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400, false},
        {POST "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400, false},
        {POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, false},
        {POST "Transfer-Encoding: identity\r\n\r\n", 400, false},
        {POST "Transfer-Encoding: xchunked\r\n\r\n", 400, false},
        {POST "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", 400, false},
        {POST "Transfer-Encoding: chunked\r\n\r\nffffffff\r\n", 413, false},
        {POST "Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n", 400, false},
        {POST "Transfer-Encoding: chunked\r\n\r\nx\r\n", 400, false},
        {POST "Transfer-Encoding: chunked\r\n\r\n-1\r\n", 400, false},
        {POST "Transfer-Encoding: chunked\r\n\r\n\r\n", 400, false},
        {POST "Transfer-Encoding: chunked\r\n\r\n1\nx\r\n0\r\n\r\n", 400, false},
        {POST "Transfer-Encoding: chunked\r\n\r\n0\r\nX: \x01\r\n\r\n", 400, false},
        {POST "Transfer-Encoding: chunked\r\n\r\n0\r\n\n", 400, false},
        {POST "\r\n", 411, true},
        {POST "Content-Length: 0\r\n\r\n", 400, true},
        {POST "Content-Length: 15\r\nExpect: 200-ok\r\n\r\n" GOOD, 417, false},
        {POST "Content-Length: 15\r\nContent-Encoding: gzip\r\n\r\n" GOOD, 415, false},
        {"POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Type: text/plain\r\nContent-Length: 15\r\n\r\n" GOOD, 415,
         false},
        {"POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Length: 15\r\n\r\n" GOOD, 415, false},
        {"POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Type: application/jsonx\r\nContent-Length: "
         "15\r\n\r\n" GOOD,
         415, false},
        {"POST /v1/completions HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, false},
        {"POST /nowhere HTTP/1.1\r\nHost: t\r\nContent-Length: 15\r\n\r\n" GOOD, 404, false},
        {"PUT /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Length: 15\r\n\r\n" GOOD, 405, false},
        {"GET /nowhere HTTP/1.1\r\nHost: t\r\n\r\n", 404, true},
        /* and what is right */
        {POST "Content-Length: 15\r\n\r\n" GOOD, 200, true},
        {POST "Content-Length: 15\r\nExpect: 100-continue\r\n\r\n" GOOD, 200, true},
        {POST "content-length:15\r\nConnection: close\r\n\r\n" GOOD, 200, false},
        {POST "Transfer-Encoding: Chunked\r\n\r\n5;a=b\r\n{\"pro\r\nA\r\nmpt\":\"ab\"}\r\n0\r\nX: y\r\n\r\n", 200,
         true},
        {"POST /v1/completions HTTP/1.0\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: "
         "15\r\n\r\n" GOOD,
         200, false},
        {"GET http://t/health HTTP/1.1\r\nHost: t\r\nX:\r\nX-Request-Id: a\tb\r\n\r\n", 200, true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        bool closed = false;
        int status = rig_raw(rig, rows[i].bytes, strlen(rows[i].bytes), rows[i].stays ? NULL : &closed);
        if (status != rows[i].status || closed == rows[i].stays)
            print_error("row %zu: %d, closed %d: %s\n", i, status, closed, rows[i].bytes);
        assert_int_equal(status, rows[i].status);
        assert_int_equal(closed, !rows[i].stays);
        rig_probe(rig);
    }
    assert_int_equal(rig_raw(rig, "GET / HTTP/1.1\r\nHost: t\r\nX: a\0b\r\n\r\n", 36, NULL), 400);
    rig_probe(rig);
}

/* Something long of n bytes between two ends. */
static int long_one(const char *before, char fill, size_t n, const char *after) {
    struct buf b;
    buf_init(&b, 64 << 20);
    buf_adds(&b, before);
    for (size_t i = 0; i < n; i++) buf_addc(&b, fill);
    buf_adds(&b, after);
    int status = rig_raw(rig, b.data, b.len, NULL);
    buf_release(&b);
    rig_probe(rig);
    return status;
}

static void sizes(void **state) {
    (void)state;
    assert_int_equal(long_one("GET /", 'a', 8000, " HTTP/1.1\r\nHost: t\r\n\r\n"), 404);
    assert_int_equal(long_one("GET /", 'a', 8200, " HTTP/1.1\r\nHost: t\r\n\r\n"), 414);
    assert_int_equal(long_one("GET /health?", 'a', 1 << 20, " HTTP/1.1\r\nHost: t\r\n\r\n"), 414);
    assert_int_equal(long_one("GET /health HTTP/1.1\r\nHost: t\r\nX: ", 'a', 8200, "\r\n\r\n"), 431);
    assert_int_equal(long_one("GET /health HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer ", 'a', 1 << 20, "\r\n\r\n"),
                     431);
    assert_int_equal(long_one(POST "Transfer-Encoding: chunked\r\n\r\n1;", 'a', 300, "\r\nx\r\n0\r\n\r\n"), 400);
    assert_int_equal(long_one(POST "Transfer-Encoding: chunked\r\n\r\n0\r\nX: ", 'a', 9000, "\r\n\r\n"), 431);
    struct buf b;
    buf_init(&b, 64 << 20);
    buf_adds(&b, "GET /health HTTP/1.1\r\nHost: t\r\n");
    for (int i = 0; i < 5; i++) buf_addf(&b, "X%d: %08000d\r\n", i, 0);
    buf_adds(&b, "\r\n");
    assert_int_equal(rig_raw(rig, b.data, b.len, NULL), 431);
    for (int n = 99; n <= 100; n++) {
        buf_reset(&b);
        buf_adds(&b, "GET /health HTTP/1.1\r\nHost: t\r\n");
        for (int i = 0; i < n; i++) buf_addf(&b, "X%d: 1\r\n", i);
        buf_adds(&b, "\r\n");
        assert_int_equal(rig_raw(rig, b.data, b.len, NULL), n == 99 ? 200 : 431);
    }
    buf_reset(&b); /* 3 MB of chunks of one byte: a body of one long string */
    buf_adds(&b, POST "Transfer-Encoding: chunked\r\n\r\nb\r\n{\"prompt\":\"\r\n");
    for (int i = 0; i < 500000; i++) buf_adds(&b, "1\r\na\r\n");
    buf_adds(&b, "2\r\n\"}\r\n0\r\n\r\n");
    assert_int_equal(rig_raw(rig, b.data, b.len, NULL), 400); /* too long for the context */
    rig_probe(rig);
    buf_reset(&b); /* more than a body may have, without saying so before */
    buf_adds(&b, POST "Transfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 11; i++) {
        buf_adds(&b, "100000\r\n");
        for (int k = 0; k < 1 << 20; k++) buf_addc(&b, ' ');
        buf_adds(&b, "\r\n");
    }
    assert_int_equal(rig_raw(rig, b.data, b.len, NULL), 413);
    rig_probe(rig);
    buf_release(&b);
}

/* ---- C, D, E: bodies ---- */

struct bad {
    const char *path, *body;
    int status;
    const char *param; /* NULL: none asked for */
};

static void check(const char *path, const char *body, size_t n, int status, const char *param) {
    struct answer a;
    rig_call(rig, path, body, n, &a);
    json_t *j = json_loadb(buf_str(&a.body), a.body.len, 0, NULL);
    const char *got = json_string_value(json_object_get(json_object_get(j, "error"), "param"));
    if (a.status != status || (param && (!got || strcmp(got, param))))
        print_error("%s %.200s\n -> %d %.300s\n", path, body, a.status, buf_str(&a.body));
    assert_int_equal(a.status, status);
    if (param) assert_string_equal(got, param);
    if (status != 200) assert_true(json_is_string(json_object_get(json_object_get(j, "error"), "message")));
    json_decref(j);
    answer_release(&a);
    rig_probe(rig);
}

#define C "/v1/completions"
#define CHAT "/v1/chat/completions"
#define P(rest) "{\"prompt\":\"ab\"," rest "}"
#define M(rest) "{\"messages\":[{\"role\":\"user\",\"content\":\"ab\"}]," rest "}"
#define MSG(list) "{\"messages\":" list ",\"max_tokens\":2}"

static const struct bad bodies[] = {
    /* C: JSON */
    {C, "", 400, NULL},
    {C, " ", 400, NULL},
    {C, "{", 400, NULL},
    {C, "{\"prompt\":\"ab\"", 400, NULL},
    {C, "{\"prompt\":\"ab\"}x", 400, NULL},
    {C, "{\"prompt\":\"ab\"}{}", 400, NULL},
    {C, "null", 400, NULL},
    {C, "[]", 400, NULL},
    {C, "\"x\"", 400, NULL},
    {C, "1", 400, NULL},
    {C, "{}", 400, "prompt"},
    {C, "\xef\xbb\xbf{\"prompt\":\"ab\"}", 400, NULL},
    {C, "{\"prompt\":\"\xff\"}", 400, NULL},
    {C, "{\"prompt\":\"\xc0\x80\"}", 400, NULL},
    {C, "{\"prompt\":\"\xed\xa0\x80\"}", 400, NULL},
    {C, "{\"prompt\":\"\\ud800\"}", 400, NULL},
    {C, "{\"prompt\":\"\\udc00\\ud800\"}", 400, NULL},
    {C, "{\"prompt\":\"a\nb\"}", 400, NULL},
    {C, "{\"prompt\":\"ab\",\"prompt\":\"ab\"}", 400, NULL},
    {C, "{\"prompt\":\"ab\",\"x\\u0000\":1}", 400, NULL},
    {C, "{'prompt':'ab'}", 400, NULL},
    {C, "{\"prompt\":\"ab\",}", 400, NULL},
    {C, "{\"prompt\":\"a\\u0000b\"}", 200, NULL}, /* NUL is text in a prompt */
    {C, P("\"unknown_field\":{\"x\":[1]},\"user\":\"me\",\"metadata\":null"), 200, NULL},
    {C, P("\"temperature\":null,\"stop\":null,\"seed\":null,\"n\":null,\"stream\":null"), 200, NULL},
    /* C17: numbers */
    {C, P("\"temperature\":1e999"), 400, "temperature"},
    {C, P("\"max_tokens\":9223372036854775808"), 400, "max_tokens"},
    {C, P("\"top_k\":-9223372036854775809"), 400, "top_k"},
    {C, P("\"max_tokens\":2147483648"), 400, "max_tokens"},
    {C, P("\"max_tokens\":4294967297"), 400, "max_tokens"},
    {C, P("\"max_tokens\":9007199254740993"), 400, "max_tokens"},
    {C, P("\"max_tokens\":-1"), 400, "max_tokens"},
    {C, P("\"max_tokens\":0.5"), 400, "max_tokens"},
    {C, P("\"max_tokens\":5.0"), 400, "max_tokens"},
    {C, P("\"max_tokens\":\"5\""), 400, "max_tokens"},
    {C, P("\"max_tokens\":true"), 400, "max_tokens"},
    {C, P("\"max_tokens\":[5]"), 400, "max_tokens"},
    {C, P("\"max_tokens\":{}"), 400, "max_tokens"},
    {C, P("\"max_tokens\":0"), 400, "max_tokens"},
    {C, P("\"max_tokens\":NaN"), 400, NULL},
    {C, P("\"temperature\":NaN"), 400, NULL},
    {C, P("\"temperature\":Infinity"), 400, NULL},
    {C, P("\"temperature\":-Infinity"), 400, NULL},
    {C, P("\"temperature\":+1"), 400, NULL},
    {C, P("\"temperature\":01"), 400, NULL},
    {C, P("\"temperature\":.5"), 400, NULL},
    {C, P("\"seed\":9223372036854775808"), 400, "seed"},
    {C, P("\"seed\":1.5"), 400, "seed"},
    {C, P("\"seed\":-9223372036854775808"), 200, NULL},
    {C, P("\"seed\":9223372036854775807,\"n\":3"), 200, NULL},
    /* D: ranges */
    {C, P("\"temperature\":-0.1"), 400, "temperature"},
    {C, P("\"temperature\":2.1"), 400, "temperature"},
    {C, P("\"temperature\":\"1\""), 400, "temperature"},
    {C, P("\"temperature\":false"), 400, "temperature"},
    {C, P("\"temperature\":1e-9"), 200, NULL},
    {C, P("\"top_p\":0"), 400, "top_p"},
    {C, P("\"top_p\":-1"), 400, "top_p"},
    {C, P("\"top_p\":1.01"), 400, "top_p"},
    {C, P("\"top_p\":1e-300"), 200, NULL},
    {C, P("\"min_p\":-0.1"), 400, "min_p"},
    {C, P("\"min_p\":1.1"), 400, "min_p"},
    {C, P("\"top_k\":-2"), 400, "top_k"},
    {C, P("\"top_k\":261"), 400, "top_k"},
    {C, P("\"top_k\":260"), 200, NULL},
    {C, P("\"top_k\":-1"), 200, NULL},
    {C, P("\"n\":0"), 400, "n"},
    {C, P("\"n\":129"), 400, "n"},
    {C, P("\"n\":5000000"), 400, "n"},
    {C, P("\"n\":128,\"max_tokens\":1"), 200, NULL},
    {C, P("\"best_of\":2"), 400, "best_of"},
    {C, P("\"best_of\":2,\"n\":2"), 200, NULL},
    {C, P("\"logprobs\":21"), 400, "logprobs"},
    {C, P("\"logprobs\":-1"), 400, "logprobs"},
    {C, P("\"logprobs\":true"), 400, "logprobs"},
    {C, P("\"logprobs\":1000000000"), 400, "logprobs"},
    {C, P("\"logprobs\":20,\"n\":128,\"max_tokens\":4000"), 400, "logprobs"},
    {C, P("\"logprobs\":1,\"echo\":true"), 400, "logprobs"},
    {C, P("\"prompt_logprobs\":0"), 400, "prompt_logprobs"},
    {C, P("\"echo\":1"), 400, "echo"},
    {C, P("\"echo\":true,\"max_tokens\":0"), 200, NULL},
    {C, P("\"echo\":true,\"max_tokens\":0,\"stream\":true"), 200, NULL},
    {C, P("\"stop\":\"\""), 400, "stop"},
    {C, P("\"stop\":[\"\"]"), 400, "stop"},
    {C, P("\"stop\":[\"a\",\"b\",\"c\",\"d\",\"e\"]"), 400, "stop"},
    {C, P("\"stop\":[1]"), 400, "stop"},
    {C, P("\"stop\":[[\"a\"]]"), 400, "stop"},
    {C, P("\"stop\":1"), 400, "stop"},
    {C, P("\"stop\":{}"), 400, "stop"},
    {C, P("\"stop\":[]"), 200, NULL},
    {C, P("\"stop\":[\"a\",\"b\",\"c\",\"d\"]"), 200, NULL},
    {C, P("\"stop\":\"\\u0000\""), 200, NULL},
    {C, P("\"stop_token_ids\":[-1]"), 400, "stop_token_ids"},
    {C, P("\"stop_token_ids\":[260]"), 400, "stop_token_ids"},
    {C, P("\"stop_token_ids\":[4294967296]"), 400, "stop_token_ids"},
    {C, P("\"stop_token_ids\":[1.0]"), 400, "stop_token_ids"},
    {C, P("\"stop_token_ids\":5"), 400, "stop_token_ids"},
    {C, P("\"stop_token_ids\":[259]"), 200, NULL},
    {C, P("\"min_tokens\":1"), 400, "min_tokens"},
    {C, P("\"presence_penalty\":0.5"), 400, "presence_penalty"},
    {C, P("\"frequency_penalty\":\"0\""), 400, "frequency_penalty"},
    {C, P("\"frequency_penalty\":0,\"presence_penalty\":0.0,\"repetition_penalty\":1,\"logit_bias\":{}"), 200, NULL},
    {C, P("\"repetition_penalty\":1.1"), 400, "repetition_penalty"},
    {C, P("\"logit_bias\":{\"5\":1}"), 400, "logit_bias"},
    {C, P("\"bad_words\":[\"x\"]"), 400, "bad_words"},
    {C, P("\"bad_words\":[]"), 200, NULL},
    {C, P("\"allowed_token_ids\":[5]"), 400, "allowed_token_ids"},
    {C, P("\"suffix\":\"x\""), 400, "suffix"},
    {C, P("\"max_completion_tokens\":0"), 400, "max_completion_tokens"},
    {C, P("\"top_logprobs\":2"), 400, "top_logprobs"},
    {C, P("\"messages\":[]"), 400, "messages"},
    {C, P("\"stream\":\"true\""), 400, "stream"},
    {C, P("\"stream\":1"), 400, "stream"},
    {C, P("\"stream_options\":{\"include_usage\":true}"), 400, "stream_options"},
    {C, P("\"stream\":true,\"stream_options\":[]"), 400, "stream_options"},
    {C, P("\"stream\":true,\"stream_options\":{\"include_usage\":1}"), 400, "stream_options"},
    {C, P("\"stream\":true,\"stream_options\":{}"), 200, NULL},
    {C, P("\"stream\":true,\"stream_options\":{\"continuous_usage_stats\":1}"), 400, "stream_options"},
    {C, P("\"ignore_eos\":0"), 400, "ignore_eos"},
    {C, P("\"cache_salt\":\"\""), 400, "cache_salt"},
    {C, P("\"cache_salt\":\"a\\u0000b\""), 400, "cache_salt"},
    {C, P("\"cache_salt\":\"tenant\""), 200, NULL},
    {C, P("\"guided_json\":{}"), 400, "guided_json"},
    {C, P("\"response_format\":{\"type\":\"json_object\"}"), 400, "response_format"},
    {C, P("\"response_format\":\"text\""), 400, "response_format"},
    {C, P("\"response_format\":{\"type\":\"text\"}"), 200, NULL},
    {C, P("\"chat_template\":\"{{x}}\""), 400, "chat_template"},
    {C, P("\"truncate_prompt_tokens\":5"), 400, "truncate_prompt_tokens"},
    {C, P("\"use_beam_search\":true"), 400, "use_beam_search"},
    {C, P("\"use_beam_search\":false"), 200, NULL},
    {C, P("\"model\":\"echo\""), 200, NULL},
    {C, P("\"model\":\"default\""), 200, NULL},
    {C, P("\"model\":\"org/echo-2\""), 200, NULL},
    {C, P("\"model\":\"/models/echo\""), 200, NULL},
    {C, P("\"model\":\"/models/echo/\""), 404, "model"},
    {C, P("\"model\":\"gpt-4\""), 404, "model"},
    {C, P("\"model\":\"\""), 404, "model"},
    {C, P("\"model\":\"echo\\u0000\""), 404, "model"},
    {C, P("\"model\":5"), 400, "model"},
    /* E: prompts */
    {C, "{\"prompt\":\"\"}", 400, "prompt"},
    {C, "{\"prompt\":\" \"}", 200, NULL},
    {C, "{\"prompt\":null}", 400, "prompt"},
    {C, "{\"prompt\":5}", 400, "prompt"},
    {C, "{\"prompt\":{}}", 400, "prompt"},
    {C, "{\"prompt\":[]}", 400, "prompt"},
    {C, "{\"prompt\":[[]]}", 400, "prompt"},
    {C, "{\"prompt\":[\"\"]}", 400, "prompt"},
    {C, "{\"prompt\":[\"a\",5]}", 400, "prompt"},
    {C, "{\"prompt\":[\"a\",[5]]}", 400, "prompt"},
    {C, "{\"prompt\":[5,\"a\"]}", 400, "prompt"},
    {C, "{\"prompt\":[[5],5]}", 400, "prompt"},
    {C, "{\"prompt\":[[[5]]]}", 400, "prompt"},
    {C, "{\"prompt\":[-1]}", 400, "prompt"},
    {C, "{\"prompt\":[260]}", 400, "prompt"},
    {C, "{\"prompt\":[4294967296]}", 400, "prompt"},
    {C, "{\"prompt\":[1.5]}", 400, "prompt"},
    {C, "{\"prompt\":[true]}", 400, "prompt"},
    {C, "{\"prompt\":[null]}", 400, "prompt"},
    {C, "{\"prompt\":[259]}", 200, NULL},
    {C, P("\"max_tokens\":4094"), 200, NULL},
    {C, P("\"max_tokens\":4095"), 400, "max_tokens"},
    {C, P("\"max_tokens\":2147483647"), 400, "max_tokens"},
    {"/generate", "{}", 400, "prompt"},
    {"/generate", "{\"prompt\":\"a\",\"prompt_token_ids\":[5]}", 400, "prompt"},
    {"/generate", "{\"prompt\":[\"a\",\"b\"]}", 400, "prompt"},
    {"/generate", "{\"prompt\":\"a\",\"n\":2}", 400, "n"},
    {"/generate", "{\"prompt_token_ids\":\"a\"}", 400, "prompt_token_ids"},
    {"/generate", "{\"prompt_token_ids\":[]}", 400, NULL},
    {"/generate", "{\"prompt_token_ids\":[260]}", 400, "prompt_token_ids"},
    {"/generate", "{\"prompt\":\"a\",\"sampling_params\":{\"temperature\":0}}", 400, "sampling_params"},
    /* C21: messages */
    {CHAT, "{}", 400, "messages"},
    {CHAT, MSG("[]"), 400, "messages"},
    {CHAT, MSG("{}"), 400, "messages"},
    {CHAT, MSG("\"x\""), 400, "messages"},
    {CHAT, MSG("[5]"), 400, "messages"},
    {CHAT, MSG("[[]]"), 400, "messages"},
    {CHAT, MSG("[{}]"), 400, "messages"},
    {CHAT, MSG("[{\"content\":\"x\"}]"), 400, "messages"},
    {CHAT, MSG("[{\"role\":\"user\"}]"), 400, "messages"},
    {CHAT, MSG("[{\"role\":5,\"content\":\"x\"}]"), 400, "messages"},
    {CHAT, MSG("[{\"role\":\"root\",\"content\":\"x\"}]"), 400, "messages"},
    {CHAT, MSG("[{\"role\":\"user\\u0000\",\"content\":\"x\"}]"), 400, "messages"},
    {CHAT, MSG("[{\"role\":\"user\",\"content\":null}]"), 400, "messages"},
    {CHAT, MSG("[{\"role\":\"user\",\"content\":[]}]"), 400, "messages"},
    {CHAT, MSG("[{\"role\":\"user\",\"content\":{}}]"), 400, "messages"},
    {CHAT, MSG("[{\"role\":\"user\",\"content\":5}]"), 400, "messages"},
    {CHAT, MSG("[{\"role\":\"user\",\"content\":[\"x\"]}]"), 400, "messages"},
    {CHAT, MSG("[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]"), 400, "messages"},
    {CHAT, MSG("[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":5}]}]"), 400, "messages"},
    {CHAT, MSG("[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"http://x\"}}]}]"),
     400, "messages"},
    {CHAT, MSG("[{\"role\":\"user\",\"content\":[{\"type\":\"input_audio\"}]}]"), 400, "messages"},
    {CHAT, MSG("[{\"role\":\"assistant\",\"content\":null}]"), 400, "messages"},
    {CHAT, MSG("[{\"role\":\"tool\",\"content\":\"x\"}]"), 400, "messages"},
    {CHAT, MSG("[{\"role\":\"assistant\",\"tool_calls\":[5]}]"), 400, "messages"},
    {CHAT, MSG("[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{}}]}]"), 400, "messages"},
    {CHAT, MSG("[{\"role\":\"assistant\",\"content\":\"x\",\"tool_calls\":{}}]"), 400, "messages"},
    {CHAT,
     MSG("[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\"}]}]"),
     200, NULL},
    {CHAT, MSG("[{\"role\":\"developer\",\"content\":\"a\"},{\"role\":\"user\",\"content\":\"a\\u0000\"}]"), 200, NULL},
    {CHAT, M("\"logprobs\":5"), 400, "logprobs"},
    {CHAT, M("\"top_logprobs\":2"), 400, "top_logprobs"},
    {CHAT, M("\"logprobs\":true,\"top_logprobs\":21,\"max_tokens\":1"), 400, "top_logprobs"},
    {CHAT, M("\"logprobs\":true,\"n\":2"), 200, NULL},
    {CHAT, M("\"best_of\":2"), 400, "best_of"},
    {CHAT, M("\"suffix\":\"x\""), 400, "suffix"},
    {CHAT, M("\"echo\":true"), 400, "echo"},
    {CHAT, M("\"echo\":false,\"suffix\":\"\",\"best_of\":1"), 200, NULL},
    {CHAT, M("\"prompt\":\"x\""), 400, "prompt"},
    {CHAT, M("\"max_completion_tokens\":0"), 400, "max_completion_tokens"},
    {CHAT, M("\"max_completion_tokens\":3,\"max_tokens\":4000"), 200, NULL},
    {CHAT, M("\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]"), 400, "tools"},
    {CHAT, M("\"tools\":5"), 400, "tools"},
    {CHAT, M("\"tools\":[],\"tool_choice\":\"auto\",\"max_tokens\":1"), 200, NULL},
    {CHAT,
     M("\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],\"tool_choice\":\"none\",\"max_tokens\":1"),
     200, NULL},
    {CHAT, M("\"tool_choice\":\"required\""), 400, "tool_choice"},
    {CHAT, M("\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"f\"}}"), 400, "tool_choice"},
    {CHAT, M("\"functions\":[{}]"), 400, "functions"},
    {CHAT, M("\"modalities\":[\"audio\"]"), 400, "modalities"},
    {CHAT, M("\"audio\":{}"), 400, "audio"},
    {CHAT, M("\"continue_final_message\":true,\"add_generation_prompt\":true"), 400, "continue_final_message"},
    /* F30 */
    {CHAT, M("\"chat_template\":\"x\""), 400, "chat_template"},
    {CHAT, M("\"chat_template_kwargs\":5"), 400, "chat_template_kwargs"},
    {CHAT, M("\"chat_template_kwargs\":{\"chat_template\":\"x\"}"), 400, "chat_template_kwargs"},
    {CHAT, M("\"chat_template_kwargs\":{\"tokenize\":true}"), 400, "chat_template_kwargs"},
    {CHAT, M("\"chat_template_kwargs\":{\"messages\":\"x\"}"), 400, "chat_template_kwargs"},
    {CHAT, M("\"chat_template_kwargs\":{\"tools\":null}"), 400, "chat_template_kwargs"},
    {CHAT, M("\"chat_template_kwargs\":{\"x\":[1]}"), 400, "chat_template_kwargs"},
    {CHAT, M("\"chat_template_kwargs\":{\"x\":{}}"), 400, "chat_template_kwargs"},
    {CHAT, M("\"chat_template_kwargs\":{\"enable_thinking\":false},\"max_tokens\":1"), 200, NULL},
};

static void bad_bodies(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++)
        check(bodies[i].path, bodies[i].body, strlen(bodies[i].body), bodies[i].status, bodies[i].param);
}

/* `before`, n times `again` with commas between, `after`. */
static void check_many(const char *path, const char *before, const char *again, size_t n, const char *after, int status,
                       const char *param) {
    struct buf b;
    buf_init(&b, 64 << 20);
    buf_adds(&b, before);
    for (size_t i = 0; i < n; i++) {
        if (i) buf_addc(&b, ',');
        buf_adds(&b, again);
    }
    buf_adds(&b, after);
    check(path, b.data, b.len, status, param);
    buf_release(&b);
}

static void costly_bodies(void **state) {
    (void)state;
    struct buf b;
    buf_init(&b, 64 << 20);
    for (int n = 62; n <= 70; n += 4) { /* root, prompt, n: depth n + 1 */
        buf_reset(&b);
        buf_adds(&b, "{\"prompt\":\"a\",\"x\":");
        for (int i = 0; i < n; i++) buf_addc(&b, '[');
        for (int i = 0; i < n; i++) buf_addc(&b, ']');
        buf_addc(&b, '}');
        check(C, b.data, b.len, n < 64 ? 200 : 400, NULL);
    }
    buf_reset(&b);
    buf_adds(&b, "{\"x\":");
    for (int i = 0; i < 1000000; i++) buf_addc(&b, '[');
    check(C, b.data, b.len, 400, NULL);
    buf_reset(&b);
    buf_adds(&b, "{\"prompt\":\"a\"");
    for (int i = 0; i < 300000; i++) buf_addf(&b, ",\"k%d\":%d", i, i);
    buf_addc(&b, '}');
    check(C, b.data, b.len, 200, NULL);
    buf_reset(&b);
    buf_adds(&b, "{\"prompt\":\"");
    for (int i = 0; i < 8 << 20; i++) buf_addc(&b, 'A');
    buf_adds(&b, "\"}");
    check(C, b.data, b.len, 400, "prompt");
    buf_reset(&b);
    buf_adds(&b, "{\"messages\":[{\"role\":\"user\",\"content\":\"");
    for (int i = 0; i < 8 << 20; i++) buf_addc(&b, 'A');
    buf_adds(&b, "\"}]}");
    check(CHAT, b.data, b.len, 400, "messages");
    buf_reset(&b);
    buf_addf(&b, "{\"prompt\":\"a\",\"stop\":\"%01025d\"}", 0);
    check(C, b.data, b.len, 400, "stop");
    buf_reset(&b);
    buf_addf(&b, "{\"prompt\":\"a\",\"stop\":\"%01024d\"}", 0);
    check(C, b.data, b.len, 200, NULL);
    buf_reset(&b);
    buf_addf(&b, "{\"prompt\":\"a\",\"cache_salt\":\"%0257d\"}", 0);
    check(C, b.data, b.len, 400, "cache_salt");
    buf_reset(&b);
    buf_addf(&b, "{\"prompt\":\"a\",\"max_tokens\":%01000d}", 0);
    check(C, b.data, b.len, 400, NULL);
    buf_release(&b);
    check_many(C, "{\"prompt\":\"a\",\"stop\":[", "\"x\"", 500000, "]}", 400, "stop");
    check_many(C, "{\"prompt\":\"a\",\"stop_token_ids\":[", "5", 129, "]}", 400, "stop_token_ids");
    check_many(C, "{\"prompt\":\"a\",\"stop_token_ids\":[", "5", 128, "]}", 200, NULL);
    check_many(C, "{\"prompt\":[", "5", 999990, "]}", 400, "prompt");
    check_many(C, "{\"prompt\":[", "5", 1100000, "]}", 400, NULL);
    check_many(C, "{\"prompt\":[", "5", 4095, "],\"max_tokens\":1}", 200, NULL);
    check_many(C, "{\"prompt\":[", "5", 4096, "],\"max_tokens\":1}", 400, "prompt");
    check_many(C, "{\"max_tokens\":1,\"prompt\":[", "\"a\"", 1024, "]}", 200, NULL);
    check_many(C, "{\"max_tokens\":1,\"prompt\":[", "\"a\"", 1025, "]}", 400, "prompt");
    check_many(C, "{\"max_tokens\":1,\"n\":2,\"prompt\":[", "\"a\"", 513, "]}", 400, "n");
    check_many(CHAT, "{\"max_tokens\":1,\"messages\":[", "{\"role\":\"user\",\"content\":\"\"}", 100000, "]}", 400,
               "messages");
    check_many(CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"chat_template_kwargs\":{", "\"a\":1", 2,
               "}}", 400, NULL);
}

/* ---- C20: every field of the table with every wrong type, on each route ---- */

static bool has_field(json_t *list, const char *name) {
    size_t i;
    json_t *v;
    json_array_foreach(list, i, v) if (!strcmp(json_string_value(v), name)) return true;
    return false;
}

/* The names of the table as it documents itself. */
static json_t *field_names(void) {
    struct buf b;
    json_t *list = json_array();
    buf_init(&b, 1 << 20);
    fields_markdown(&b);
    for (const char *p = buf_str(&b); (p = strstr(p, "\n| `")); p++) {
        char name[64];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(p + 4, "`"), p + 4);
        if (!has_field(list, name)) json_array_append_new(list, json_string(name));
    }
    buf_release(&b);
    assert_true(json_array_size(list) > 50);
    return list;
}

static int status_of(const char *path, const char *body, struct answer *a) {
    rig_call(rig, path, body, strlen(body), a);
    if (a->status != 200) assert_non_null(strstr(buf_str(&a->body), "{\"error\":{\"message\":"));
    return a->status;
}

static void every_field_of_every_type(void **state) {
    (void)state;
    static const char *const values[] = {"null",
                                         "\"\"",
                                         "[]",
                                         "{}",
                                         "true",
                                         "false",
                                         "0",
                                         "-1",
                                         "0.5",
                                         "1e300",
                                         "9223372036854775807",
                                         "\"x\"",
                                         "\"\\u0000\"",
                                         "[null]",
                                         "[[]]",
                                         "[{}]",
                                         "{\"type\":null}",
                                         "{\"x\":[1]}"};
    static const struct {
        const char *path, *start;
    } routes[] = {{C, "{\"prompt\":\"ab\",\"max_tokens\":1"},
                  {CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"ab\"}],\"max_completion_tokens\":1"},
                  {"/generate", "{\"prompt\":\"ab\",\"max_tokens\":1"}};
    json_t *names = field_names(), *name;
    size_t i;
    int n[600] = {0};
    json_array_foreach(names, i, name) for (size_t r = 0; r < 3; r++) for (size_t v = 0;
                                                                           v < sizeof values / sizeof *values; v++) {
        const char *field = json_string_value(name), *start = routes[r].start;
        char mine[80], body[400];
        snprintf(mine, sizeof mine, "\"%s\":", field);
        bool needed = strstr(start, mine) != NULL; /* given by the start already: replace it */
        if (needed && !strcmp(field, "max_tokens"))
            start = "{\"prompt\":\"ab\"";
        else if (needed && !strcmp(field, "max_completion_tokens"))
            start = "{\"messages\":[{\"role\":\"user\",\"content\":\"ab\"}],\"max_tokens\":1";
        else if (needed)
            start = "{\"max_tokens\":1";
        snprintf(body, sizeof body, "%s,\"%s\":%s}", start, field, values[v]);
        struct answer a;
        int status = status_of(routes[r].path, body, &a);
        bool absent = !strcmp(values[v], "null"),
             may = !(needed && (!strcmp(field, "prompt") || !strcmp(field, "messages")));
        if (status != 200 && status != 400 && status != 404) fail_msg("%s %s: %d", routes[r].path, body, status);
        if (absent && may && status != 200)
            fail_msg("%s %s: null is not as absent: %s", routes[r].path, body, buf_str(&a.body));
        n[status]++;
        answer_release(&a);
    }
    assert_true(n[200] > 300 && n[400] > 1000); /* ignored on that route, or right; and refused */
    json_decref(names);
    rig_probe(rig);
}

/* ---- A5, A11, C19; B14 ---- */

static void heads_and_trailers(void **state) {
    (void)state;
    struct buf b;
    struct answer a;
    char v[64];
    buf_init(&b, 64 << 20);
    buf_adds(&b, POST "Transfer-Encoding: chunked\r\n\r\nf\r\n" GOOD "\r\n0\r\n"); /* a bomb of trailers */
    for (int i = 0; i < 100000; i++) buf_addf(&b, "X%d: y\r\n", i);
    buf_adds(&b, "\r\n");
    assert_int_equal(rig_raw(rig, b.data, b.len, NULL), 431);
    rig_probe(rig);
    /* a client's id is not sent back: it can put nothing into our head */
    static const char own[] =
        "POST " C " HTTP/1.1\r\nHost: t\r\nX-Request-Id: mine%0d%0aSet-Cookie: x\r\nContent-Type: application/json\r\n"
        "Content-Length: 15\r\n\r\n" GOOD;
    int fd = rig_connect(rig);
    answer_init(&a);
    rig_send(fd, own, sizeof own - 1);
    answer_read(&a, fd, false);
    assert_int_equal(a.status, 200);
    assert_null(strstr(a.head.data, "mine"));
    assert_int_equal(strncmp(answer_header(&a, "x-request-id", v, sizeof v), "cmpl-", 5), 0);
    answer_release(&a);
    close(fd);
    buf_reset(&b); /* as many keys as the body may hold */
    buf_adds(&b, "{\"prompt\":\"ab\"");
    for (int i = 0; i < 600000; i++) buf_addf(&b, ",\"%x\":1", i + 0x10000);
    buf_addc(&b, '}');
    rig_call(rig, C, b.data, b.len, &a);
    assert_int_equal(a.status, 200);
    answer_release(&a);
    buf_release(&b);
    rig_probe(rig);
}

static void errors_tell_nothing_of_the_machine(void **state) {
    (void)state;
    static const char *const inner[] = {"0x7f", "0x55", "/tmp", "/home", ".c:", "src/", "jansson", "(nil)", "%s"};
    static const char *const ask[] = {"{",
                                      "{\"prompt\":\"a\",\"model\":\"x\"}",
                                      "{\"prompt\":5}",
                                      "{\"prompt\":[1e9]}",
                                      "{\"prompt\":\"\xff\"}",
                                      "{\"prompt\":\"a\",\"max_tokens\":99999}",
                                      "{\"prompt\":\"a\",\"temperature\":9}",
                                      "[]",
                                      ""};
    for (size_t i = 0; i < sizeof ask / sizeof *ask; i++) {
        struct answer a;
        assert_true(status_of(C, ask[i], &a) >= 400);
        for (size_t k = 0; k < sizeof inner / sizeof *inner; k++)
            if (strstr(a.body.data, inner[k])) fail_msg("%s tells %s: %s", ask[i], inner[k], a.body.data);
        answer_release(&a);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(framing),
        cmocka_unit_test(sizes),
        cmocka_unit_test(bad_bodies),
        cmocka_unit_test(costly_bodies),
        cmocka_unit_test(every_field_of_every_type),
        cmocka_unit_test(heads_and_trailers),
        cmocka_unit_test(errors_tell_nothing_of_the_machine),
    };
    return cmocka_run_group_tests_name("serve_bad", tests, open_rig, close_rig);
}
