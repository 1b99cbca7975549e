/* test_serve.c: the routes and the shapes of their answers, over a scheduler that echoes. */
#include "serve_rig.h"

static struct rig *rig;

static int open_rig(void **state) {
    (void)state;
    rig = rig_open(&(struct serve_args){0});
    return 0;
}

static int close_rig(void **state) {
    (void)state;
    rig_close(rig);
    return 0;
}

/* The JSON answer to a call that must succeed. */
static json_t *call(const char *path, const char *body) {
    struct answer a;
    rig_call(rig, path, body, strlen(body), &a);
    if (a.status != 200) print_error("%s\n", buf_str(&a.body));
    assert_int_equal(a.status, 200);
    json_t *j = json_loadb(buf_str(&a.body), a.body.len, JSON_ALLOW_NUL, NULL);
    assert_non_null(j);
    answer_release(&a);
    return j;
}

static const char *str(json_t *j, const char *name) { return json_string_value(json_object_get(j, name)); }
static int num(json_t *j, const char *name) { return (int)json_integer_value(json_object_get(j, name)); }
static json_t *choice(json_t *j, size_t i) { return json_array_get(json_object_get(j, "choices"), i); }

/* The events of a stream: the JSON of each, [DONE] checked and left out. */
static json_t *events(const char *path, const char *body) {
    struct answer a;
    char v[64];
    rig_call(rig, path, body, strlen(body), &a);
    assert_int_equal(a.status, 200);
    assert_string_equal(answer_header(&a, "content-type", v, sizeof v), "text/event-stream; charset=utf-8");
    json_t *list = json_array();
    bool done = false;
    for (char *p = a.body.data; *p;) {
        char *end = strstr(p, "\n\n");
        assert_non_null(end);
        assert_memory_equal(p, "data: ", 6);
        assert_false(done);
        if (!strncmp(p + 6, "[DONE]", 6))
            done = true;
        else {
            json_t *j = json_loadb(p + 6, (size_t)(end - p - 6), 0, NULL);
            assert_non_null(j);
            json_array_append_new(list, j);
        }
        p = end + 2;
    }
    assert_true(done);
    answer_release(&a);
    return list;
}

static void chat_whole(void **state) {
    (void)state;
    json_t *j =
        call("/v1/chat/completions", "{\"model\":\"echo\",\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}],"
                                     "\"max_tokens\":7}");
    assert_int_equal(strncmp(str(j, "id"), "chatcmpl-", 9), 0);
    assert_int_equal(strlen(str(j, "id")), 9 + 32);
    assert_string_equal(str(j, "object"), "chat.completion");
    assert_string_equal(str(j, "model"), "echo");
    assert_true(num(j, "created") > 1000000000);
    json_t *c = choice(j, 0), *m = json_object_get(c, "message"), *u = json_object_get(j, "usage");
    assert_string_equal(str(m, "role"), "assistant");
    assert_string_equal(str(m, "content"), "hellohe");
    assert_string_equal(str(c, "finish_reason"), "length");
    assert_true(json_is_null(json_object_get(c, "logprobs")));
    assert_int_equal(num(u, "prompt_tokens"), 5);
    assert_int_equal(num(u, "completion_tokens"), 7);
    assert_int_equal(num(u, "total_tokens"), 12);
    assert_int_equal(num(json_object_get(u, "prompt_tokens_details"), "cached_tokens"), 2);
    json_decref(j);
}

static void chat_stream(void **state) {
    (void)state;
    json_t *l = events("/v1/chat/completions",
                       "{\"messages\":[{\"role\":\"user\",\"content\":\"h\\u00e9llo\\u0004\"}],\"stream\":true,"
                       "\"stream_options\":{\"include_usage\":true}}");
    size_t n = json_array_size(l);
    assert_true(n >= 4);
    struct buf text;
    buf_init(&text, 1000);
    for (size_t i = 0; i < n; i++) {
        json_t *e = json_array_get(l, i), *c = choice(e, 0), *d = json_object_get(c, "delta");
        assert_string_equal(str(e, "object"), "chat.completion.chunk");
        assert_string_equal(str(e, "id"), str(json_array_get(l, 0), "id"));
        if (!i) assert_string_equal(str(d, "role"), "assistant");
        if (i && i < n - 2) buf_adds(&text, str(d, "content"));
        if (i < n - 2) assert_true(json_is_null(json_object_get(c, "finish_reason")));
        if (i == n - 2) assert_string_equal(str(c, "finish_reason"), "stop");
        if (i < n - 1) assert_true(json_is_null(json_object_get(e, "usage")));
    }
    assert_string_equal(buf_str(&text), "h\xc3\xa9llo");
    json_t *last = json_array_get(l, n - 1);
    assert_int_equal(json_array_size(json_object_get(last, "choices")), 0);
    assert_int_equal(num(json_object_get(last, "usage"), "completion_tokens"), 7);
    buf_release(&text);
    json_decref(l);
}

static void completions_list_and_n(void **state) {
    (void)state;
    json_t *j = call("/v1/completions", "{\"prompt\":[\"ab\",\"cd\"],\"n\":2,\"max_tokens\":4,\"echo\":true}");
    assert_int_equal(json_array_size(json_object_get(j, "choices")), 4);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(num(choice(j, i), "index"), i);
        assert_string_equal(str(choice(j, i), "text"), i < 2 ? "ababab" : "cdcdcd");
    }
    assert_string_equal(str(j, "object"), "text_completion");
    assert_int_equal(num(json_object_get(j, "usage"), "prompt_tokens"), 4);
    assert_int_equal(num(json_object_get(j, "usage"), "completion_tokens"), 16);
    json_decref(j);
    j = call("/v1/completions", "{\"prompt\":[[65,66],[67]],\"max_tokens\":3}");
    assert_string_equal(str(choice(j, 0), "text"), "ABA");
    assert_string_equal(str(choice(j, 1), "text"), "CCC");
    json_decref(j);
    j = call("/v1/completions", "{\"prompt\":[65,66],\"max_tokens\":0,\"echo\":true}");
    assert_string_equal(str(choice(j, 0), "text"), "AB");
    assert_int_equal(num(json_object_get(j, "usage"), "prompt_tokens"), 2);
    json_decref(j);
}

static void stop_strings_cut(void **state) {
    (void)state;
    json_t *j = call("/v1/completions", "{\"prompt\":\"one two three \",\"max_tokens\":50,\"stop\":[\"zzz\",\"two\"]}");
    assert_string_equal(str(choice(j, 0), "text"), "one ");
    assert_string_equal(str(choice(j, 0), "finish_reason"), "stop");
    assert_string_equal(str(choice(j, 0), "stop_reason"), "two");
    assert_int_equal(num(json_object_get(j, "usage"), "completion_tokens"), 7);
    json_decref(j);
    assert_true(rig_settle(rig, 0));
    j = call("/v1/completions", "{\"prompt\":\"one two\",\"max_tokens\":50,\"stop_token_ids\":[32]}");
    assert_string_equal(str(choice(j, 0), "text"), "one");
    assert_int_equal(num(choice(j, 0), "stop_reason"), 32);
    json_decref(j);
    j = call("/v1/completions", "{\"prompt\":\"one \\u0004wo\",\"max_tokens\":9,\"ignore_eos\":true}");
    assert_string_equal(str(choice(j, 0), "finish_reason"), "length");
    json_decref(j);
}

static void logprobs(void **state) {
    (void)state;
    json_t *j = call("/v1/chat/completions", "{\"messages\":[{\"role\":\"user\",\"content\":\"AB\"}],\"max_tokens\":2,"
                                             "\"logprobs\":true,\"top_logprobs\":2}");
    json_t *l = json_object_get(json_object_get(choice(j, 0), "logprobs"), "content");
    assert_int_equal(json_array_size(l), 2);
    json_t *t = json_array_get(l, 1);
    assert_string_equal(str(t, "token"), "B");
    assert_int_equal(json_integer_value(json_array_get(json_object_get(t, "bytes"), 0)), 66);
    assert_int_equal(json_array_size(json_object_get(t, "top_logprobs")), 2);
    assert_string_equal(str(json_array_get(json_object_get(t, "top_logprobs"), 1), "token"), "C");
    json_decref(j);
    j = call("/v1/completions", "{\"prompt\":\"AB\",\"max_tokens\":3,\"logprobs\":2}");
    l = json_object_get(choice(j, 0), "logprobs");
    assert_int_equal(json_integer_value(json_array_get(json_object_get(l, "text_offset"), 2)), 2);
    assert_string_equal(json_string_value(json_array_get(json_object_get(l, "tokens"), 2)), "A");
    assert_int_equal(json_object_size(json_array_get(json_object_get(l, "top_logprobs"), 0)), 2);
    assert_int_equal(json_array_size(json_object_get(l, "token_logprobs")), 3);
    json_decref(j);
}

static void generate_route(void **state) {
    (void)state;
    json_t *j = call("/generate", "{\"prompt_token_ids\":[72,105],\"max_tokens\":3,\"logprobs\":1}");
    assert_string_equal(str(j, "text"), "HiH");
    assert_int_equal(json_array_size(json_object_get(j, "token_ids")), 3);
    assert_int_equal(num(json_array_get(json_object_get(j, "logprobs"), 0), "token_id"), 72);
    assert_string_equal(str(j, "finish_reason"), "length");
    assert_int_equal(num(json_object_get(j, "usage"), "total_tokens"), 5);
    json_decref(j);
    json_t *l = events("/generate", "{\"prompt\":\"two\\nlines \",\"max_tokens\":10,\"stream\":true}");
    struct buf text;
    size_t ids = 0;
    buf_init(&text, 1000);
    for (size_t i = 0; i < json_array_size(l); i++) {
        buf_adds(&text, str(json_array_get(l, i), "text"));
        ids += json_array_size(json_object_get(json_array_get(l, i), "token_ids"));
    }
    assert_string_equal(buf_str(&text), "two\nlines ");
    assert_int_equal(ids, 10);
    buf_release(&text);
    json_decref(l);
}

static int get(const char *method, const char *path, struct answer *a) {
    char req[256];
    int fd = rig_connect(rig), n = snprintf(req, sizeof req, "%s %s HTTP/1.1\r\nHost: t\r\n\r\n", method, path);
    answer_init(a);
    rig_send(fd, req, (size_t)n);
    answer_read(a, fd, !strcmp(method, "HEAD"));
    close(fd);
    return a->status;
}

static void small_routes(void **state) {
    (void)state;
    static const struct {
        const char *method, *path;
        int status;
        const char *has;
    } rows[] = {
        {"GET", "/health", 200, "ok"},
        {"HEAD", "/health", 200, ""},
        {"GET", "/v1", 200, "{\"status\":\"ok\"}"},
        {"HEAD", "/v1", 200, ""},
        {"OPTIONS", "/v1", 200, "ok"},
        {"GET", "/", 200, "/v1/chat/completions"},
        {"GET", "/version", 200, "{\"version\":\"test\"}"},
        {"GET", "/v1/models", 200, "\"max_model_len\":4096"},
        {"GET", "/v1/models/echo", 200, "\"id\":\"echo\""},
        {"GET", "/v1/models/org/echo-2", 200, "\"id\":\"org/echo-2\""},
        {"GET", "/v1/models/org%2fecho-2?x=y", 200, "\"id\":\"org/echo-2\""},
        {"GET", "/v1/models/other", 404, "model_not_found"},
        {"GET", "/v1/models//models/echo", 404, "it is 'echo'"},
        {"GET", "/metrics", 200, "vllm:prompt_tokens_total"},
        {"HEAD", "/metrics", 200, ""},
        {"POST", "/metrics", 405, ""},
        {"GET", "/flush_cache", 405, ""},
        {"POST", "/flush_cache", 200, "ok"},
        {"GET", "/v1/", 404, ""},
        {"GET", "//", 404, ""},
        {"GET", "/%00", 404, ""},
        {"GET", "/v1/../health", 404, ""},
        {"GET", "/v1/chat/completions", 405, ""},
        {"DELETE", "/v1/models", 405, ""},
        {"BREW", "/health", 405, ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct answer a;
        char v[64];
        int status = get(rows[i].method, rows[i].path, &a);
        if (status != rows[i].status) print_error("%s %s: %d\n", rows[i].method, rows[i].path, status);
        assert_int_equal(status, rows[i].status);
        assert_non_null(strstr(buf_str(&a.body), rows[i].has));
        if (status == 405) assert_non_null(answer_header(&a, "allow", v, sizeof v));
        answer_release(&a);
    }
}

static void one_connection_many_requests(void **state) {
    (void)state;
    struct answer a;
    int fd = rig_connect(rig);
    answer_init(&a);
    for (int i = 0; i < 3; i++) { /* one after the other */
        const char *body =
            i == 1 ? "{\"prompt\":\"x\",\"max_tokens\":2,\"stream\":true}" : "{\"prompt\":\"x\",\"max_tokens\":2}";
        rig_send_post(fd, "/v1/completions", body, strlen(body));
        answer_read(&a, fd, false);
        assert_int_equal(a.status, 200);
    }
    for (int i = 0; i < 3; i++) { /* all at once */
        const char *body = i == 1 ? "{" : "{\"prompt\":\"yz\",\"max_tokens\":3}";
        rig_send_post(fd, "/v1/completions", body, strlen(body));
    }
    for (int i = 0; i < 3; i++) {
        answer_read(&a, fd, false);
        assert_int_equal(a.status, i == 1 ? 400 : 200);
        if (i != 1) assert_non_null(strstr(buf_str(&a.body), "\"yzy\""));
    }
    answer_release(&a);
    close(fd);
}

static void scheduler_errors_are_statuses(void **state) {
    (void)state;
    static const struct {
        enum finish finish;
        int status;
    } rows[] = {{FINISH_ERROR, 500}, {FINISH_TIMEOUT, 503}, {FINISH_ABORT, 503}};
    for (size_t i = 0; i < 2 * sizeof rows / sizeof rows[0]; i++) {
        const char *body = i % 2 ? "{\"prompt\":\"x\",\"stream\":true}" : "{\"prompt\":\"x\"}";
        struct answer a;
        rig->fail = (int)rows[i / 2].finish;
        rig_call(rig, "/v1/completions", body, strlen(body), &a);
        assert_int_equal(a.status, rows[i / 2].status);
        assert_non_null(strstr(buf_str(&a.body), "\"type\":\"server_error\""));
        answer_release(&a);
        rig_probe(rig);
    }
}

static void a_bucket_holds_its_bound(void **state) {
    (void)state;
    static const struct histo_scale scale = {.n = 3, .bound = {1, 10, 100}};
    static const struct {
        uint64_t v;
        int bucket;
    } rows[] = {{0, 0}, {1, 0}, {2, 1}, {10, 1}, {11, 2}, {100, 2}, {101, 3}, {UINT32_MAX, 3}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct histo h = {0};
        histo_add(&h, &scale, rows[i].v, 3);
        for (int k = 0; k <= scale.n; k++) assert_int_equal(h.count[k], k == rows[i].bucket ? 3 : 0);
        assert_int_equal(h.sum, 3 * rows[i].v);
    }
    for (int i = 1; i < stats_times.n; i++) assert_true(stats_times.bound[i - 1] < stats_times.bound[i]);
    for (int i = 1; i < stats_tokens.n; i++) assert_true(stats_tokens.bound[i - 1] < stats_tokens.bound[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chat_whole),
        cmocka_unit_test(chat_stream),
        cmocka_unit_test(completions_list_and_n),
        cmocka_unit_test(stop_strings_cut),
        cmocka_unit_test(logprobs),
        cmocka_unit_test(generate_route),
        cmocka_unit_test(small_routes),
        cmocka_unit_test(one_connection_many_requests),
        cmocka_unit_test(scheduler_errors_are_statuses),
        cmocka_unit_test(a_bucket_holds_its_bound),
    };
    return cmocka_run_group_tests_name("serve", tests, open_rig, close_rig);
}
