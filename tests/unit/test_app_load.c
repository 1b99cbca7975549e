/* test_app_load.c: the whole program in one process, from sockets to kernels: 200 concurrent streams, clients that
 * leave, a pool so small that requests are put back, the cache flushed and figures read meanwhile, and a drain in the
 * middle of it all. Every text that ends must be what the request gets alone. Made for the thread sanitizer; the model
 * is a few random weights. */
#include "serve_rig.h"

#include "app.h"
#include "base/clock.h"
#include "cli/front.h"

enum { CLIENTS = 200, TOKENS = 40, PROMPTS = 20 };

static const char config[] =
    "{\"architectures\":[\"Qwen3ForCausalLM\"],\"model_type\":\"qwen3\",\"hidden_size\":32,\"intermediate_size\":64,"
    "\"num_hidden_layers\":2,\"num_attention_heads\":2,\"num_key_value_heads\":1,\"head_dim\":32,\"vocab_size\":260,"
    "\"max_position_embeddings\":512,\"rms_norm_eps\":1e-6,\"rope_theta\":10000.0,\"hidden_act\":\"silu\","
    "\"attention_bias\":false,\"tie_word_embeddings\":false,\"torch_dtype\":\"bfloat16\",\"eos_token_id\":259,"
    "\"use_sliding_window\":false}";

/* The program as `minisgl serve` puts it together. */
struct whole {
    struct rig rig; /* port alone, for the client's side */
    char dir[40];
    struct app app;
    struct cli_front front;
    struct serve *serve;
    pthread_t io;
};

static void whole_open(struct whole *w, const char *const *more, int n_more) {
    struct options o;
    struct err e;
    char path[80];
    memset(w, 0, sizeof *w);
    log_set_style(&(struct log_style){.lowest = LOG_ERROR});
    strcpy(w->dir, "/tmp/minisgl-app-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    snprintf(path, sizeof path, "%s/config.json", w->dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(config, f);
    fclose(f);
    char *argv[32] = {"minisgl", "--model", w->dir,      "--dummy-weight", "--threads",
                      "2",       "--host",  "127.0.0.1", "--port",         "0"};
    int argc = 10;
    for (int i = 0; i < n_more; i++) argv[argc++] = (char *)(uintptr_t)more[i];
    if (options_parse(&o, CMD_SERVE, argc, argv, &e)) fail_msg("%s", e.text);
    if (app_join(&w->app, &o, &e)) fail_msg("%s", e.text);
    w->serve = serve_open(
        &(struct serve_args){.host = o.host, .port = 0, .version = "test", .stats = &w->app.stats, .log_every_s = -1},
        &e);
    assert_non_null(w->serve);
    if (app_examine(&w->app, &o, &e) || serve_listen(w->serve, &e)) fail_msg("%s", e.text);
    w->rig.port = serve_port(w->serve);
    pthread_create(&w->io, NULL, rig_io, w->serve);
    if (app_open(&w->app, &o, &e)) fail_msg("%s", e.text);
    cli_front_init(&w->front, &w->app, &o);
    serve_ready(w->serve, &w->front.front);
    unlink(path);
    rmdir(w->dir);
}

static void whole_close(struct whole *w) {
    pthread_join(w->io, NULL);
    app_close(&w->app);
    serve_close(w->serve);
    cli_front_release(&w->front);
}

/* ---- a client ---- */

struct client {
    struct whole *w;
    pthread_t thread;
    int i;
    int leave_after; /* bytes of the answer; -1: stays */
    char *ids;       /* its token ids, comma-separated: what was received */
    int status;
    bool ended;
};

static int body_of(int prompt, char *out, size_t n) {
    return snprintf(out, n,
                    "{\"prompt\":\"%s prompt of number %d and something behind it\",\"max_tokens\":%d,\"stream\":true,"
                    "\"ignore_eos\":true,\"temperature\":%d,\"seed\":%d}",
                    prompt % 3 ? "A shared beginning that is some pages long, so that it is cached, and then a" : "A",
                    prompt, TOKENS + prompt, prompt & 1, prompt);
}

/* The ids of all events that are complete. */
static char *ids_of(const char *body, bool *ended) {
    struct buf all;
    buf_init(&all, 1 << 20);
    *ended = false;
    for (const char *p = body; (p = strstr(p, "data: ")); p++) {
        if (!strncmp(p, "data: [DONE]", 12)) *ended = true;
        json_t *j = strstr(p, "\n\n") ? json_loads(p + 6, JSON_DISABLE_EOF_CHECK, NULL) : NULL;
        size_t i;
        json_t *id;
        json_array_foreach(json_object_get(j, "token_ids"), i, id) buf_addf(&all, "%d,", (int)json_integer_value(id));
        json_decref(j);
    }
    char *s = strdup(buf_str(&all));
    buf_release(&all);
    return s;
}

static void *client_run(void *arg) {
    struct client *c = arg;
    char body[600];
    struct answer a;
    int n = body_of(c->i % PROMPTS, body, sizeof body), fd = rig_connect(&c->w->rig);
    answer_init(&a);
    if (fd >= 0) {
        rig_send_post(fd, "/generate", body, (size_t)n);
        if (c->leave_after < 0)
            answer_read(&a, fd, false);
        else
            while (a.raw.len < (size_t)c->leave_after && !strstr(buf_str(&a.raw), "[DONE]") && answer_more(&a, fd)) {
            }
        close(fd);
    }
    c->status = a.status;
    c->ids = ids_of(buf_str(&a.body), &c->ended);
    answer_release(&a);
    return NULL;
}

static void simple(struct whole *w, const char *request, struct answer *a) {
    int fd = rig_connect(&w->rig);
    assert_true(fd >= 0);
    answer_init(a);
    rig_send(fd, request, strlen(request));
    answer_read(a, fd, false);
    close(fd);
}

static char *alone[PROMPTS];

static void run_alone(void **state) {
    (void)state;
    static struct whole w;
    whole_open(&w, (const char *const[]){"--max-running-requests", "1", "--cache-type", "naive"}, 4);
    for (int i = 0; i < PROMPTS; i++) {
        struct client c = {.w = &w, .i = i, .leave_after = -1};
        client_run(&c);
        assert_true(c.ended);
        alone[i] = c.ids;
    }
    assert_string_not_equal(alone[0], alone[1]);
    serve_stop(w.serve);
    whole_close(&w);
}

/* drain: stop while all are under way: every stream that was accepted still ends whole. */
static void many(const char *const *options, int n_options, bool drain) {
    static struct whole w;
    static struct client c[CLIENTS];
    whole_open(&w, options, n_options);
    for (int i = 0; i < CLIENTS; i++) {
        c[i] = (struct client){.w = &w, .i = i, .leave_after = i % 4 == 1 ? i * 13 % 1300 : -1};
        assert_int_equal(pthread_create(&c[i].thread, NULL, client_run, &c[i]), 0);
        if (i % 20 == 7) {
            struct answer a;
            simple(&w, "GET /metrics HTTP/1.1\r\nHost: t\r\n\r\n", &a);
            assert_int_equal(a.status, 200);
            assert_non_null(strstr(a.body.data, "vllm:generation_tokens_total"));
            answer_release(&a);
            simple(&w, "POST /flush_cache HTTP/1.1\r\nHost: t\r\n\r\n", &a);
            assert_true(a.status == 200 || a.status == 400);
            answer_release(&a);
        }
    }
    while (drain && w.app.stats.generated_tokens < 500) usleep(1000);
    if (drain) serve_stop(w.serve);
    int ended = 0;
    for (int i = 0; i < CLIENTS; i++) {
        pthread_join(c[i].thread, NULL);
        const char *want = alone[i % PROMPTS];
        ended += c[i].ended;
        if (c[i].ended) assert_string_equal(c[i].ids, want);
        if (c[i].leave_after < 0 && !drain) assert_true(c[i].ended);
        if (c[i].leave_after < 0 && c[i].status == 200)
            assert_true(c[i].ended); /* accepted is answered, drain or not */
        free(c[i].ids);
    }
    assert_true(ended > (drain ? 0 : CLIENTS / 2));
    if (!drain) serve_stop(w.serve);
    whole_close(&w);
    assert_int_equal((int)w.app.stats.running, 0);
    assert_int_equal((int)w.app.stats.pages_used, 0);
    print_message("%d answers whole, %llu requests put back, %llu ended by leaving\n", ended,
                  (unsigned long long)w.app.stats.retracted, (unsigned long long)w.app.stats.finished_abort);
}

static void two_hundred_streams(void **state) {
    (void)state;
    many((const char *const[]){"--page-size", "4", "--num-pages", "257", "--overlap", "on", "--max-running-requests",
                               "64", "--max-seq-len-override", "256"},
         10, false);
}

static void two_hundred_streams_and_a_drain(void **state) {
    (void)state;
    many((const char *const[]){"--page-size", "16", "--num-pages", "65", "--overlap", "off"}, 6, true);
    many((const char *const[]){"--page-size", "1", "--overlap", "on", "--tp", "2"}, 6, true);
}

static void stopped_at_once(void **state) {
    (void)state;
    static struct whole w;
    static struct client c[20];
    whole_open(&w, (const char *const[]){"--overlap", "on"}, 2);
    for (int i = 0; i < 20; i++) {
        c[i] = (struct client){.w = &w, .i = i, .leave_after = -1};
        pthread_create(&c[i].thread, NULL, client_run, &c[i]);
    }
    while (w.app.stats.generated_tokens < 20) usleep(500);
    serve_stop(w.serve);
    serve_stop(w.serve);
    whole_close(&w); /* the sockets close with it */
    for (int i = 0; i < 20; i++) {
        pthread_join(c[i].thread, NULL);
        free(c[i].ids);
    }
    assert_int_equal((int)w.app.stats.running, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(run_alone),
        cmocka_unit_test(two_hundred_streams),
        cmocka_unit_test(two_hundred_streams_and_a_drain),
        cmocka_unit_test(stopped_at_once),
    };
    int failed = cmocka_run_group_tests_name("app_load", tests, NULL, NULL);
    for (int i = 0; i < PROMPTS; i++) free(alone[i]);
    return failed;
}
