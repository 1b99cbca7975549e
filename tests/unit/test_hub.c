/* test_hub.c: the parts of hub/ that need no network: listings, names, paths, checksums, what a folder lacks. */
#include "base/file.h"
#include "hub/digest.h"
#include "hub/layout.h"
#include "hub/listing.h"
#include "hub/progress.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define SHA1 "0123456789abcdef0123456789abcdef01234567"
#define SHA256 SHA1 "0123456789abcdef01234567"

static void listings_of_huggingface(void **state) {
    (void)state;
    static const char json[] =
        "{\"id\":\"a/b\",\"sha\":\"" SHA1 "\",\"siblings\":["
        "{\"rfilename\":\"model.safetensors\",\"size\":12345678901,\"blobId\":\"" SHA1
        "\",\"lfs\":{\"sha256\":\"" SHA256 "\",\"size\":12345678901,\"pointerSize\":135}},"
        "{\"rfilename\":\"config.json\",\"size\":7,\"blobId\":\"" SHA1 "\"},{\"rfilename\":\"x/y\"}]}";
    struct hub_listing l, again;
    struct err e = {0};
    struct buf b;
    buf_init(&b, 10000);
    assert_int_equal(listing_parse_huggingface(&l, json, strlen(json), &e), 0);
    assert_int_equal(l.n, 3);
    assert_string_equal(l.commit, SHA1);
    const struct hub_file *f = listing_find(&l, "model.safetensors"), *small = listing_find(&l, "config.json");
    assert_true(f->size == 12345678901u && f->kind == HUB_SUM_SHA256 && !strcmp(f->sum, SHA256));
    assert_true(small->size == 7 && small->kind == HUB_SUM_GIT && !strcmp(small->sum, SHA1));
    assert_true(listing_find(&l, "x/y")->size == SIZE_MAX && !*listing_find(&l, "x/y")->sum);
    assert_null(listing_find(&l, "config"));
    assert_int_equal(listing_write_tree(&l, &b), -1); /* x/y has no sums */
    free(l.v[--l.n].name);                            /* in order of name, so x/y is the last */
    buf_reset(&b);
    assert_int_equal(listing_write_tree(&l, &b), 0);
    assert_int_equal(listing_parse_tree(&again, SHA1, buf_str(&b), b.len, &e), 0);
    assert_int_equal(again.n, 2);
    for (size_t i = 0; i < 2; i++) {
        assert_string_equal(again.v[i].name, l.v[i].name);
        assert_string_equal(again.v[i].sum, l.v[i].sum);
        assert_true(again.v[i].size == l.v[i].size && again.v[i].kind == l.v[i].kind);
    }
    listing_release(&again);
    listing_release(&l);
    buf_release(&b);
}

static void listings_that_are_refused(void **state) {
    (void)state;
    static const struct {
        bool modelscope;
        const char *json, *says;
    } bad[] = {
        {false, "", "not JSON"},
        {false, "[]", "not an object"},
        {false, "{\"siblings\":[]}", "no commit"},
        {false, "{\"sha\":\"../../../../../../../../../../../../../x\",\"siblings\":[]}", "no commit"},
        {false, "{\"sha\":\"" SHA1 "\"}", "no files"},
        {false, "{\"sha\":\"" SHA1 "\",\"siblings\":[{}]}", "no name"},
        {false, "{\"sha\":\"" SHA1 "\",\"siblings\":[{\"rfilename\":\"a\"},{\"rfilename\":\"a\"}]}", "twice"},
        {false, "{\"sha\":\"" SHA1 "\",\"sha\":\"" SHA1 "\",\"siblings\":[]}", "duplicate"},
        {true, "{\"Data\":{}}", "no files"},
        {true, "{\"Data\":{\"Files\":[{\"Type\":\"blob\"}]}}", "no name"},
        {true, "{\"Code\":404,\"Success\":false,\"Message\":\"gone\"}", "gone"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct hub_listing l;
        struct err e = {0};
        int rc = (bad[i].modelscope ? listing_parse_modelscope : listing_parse_huggingface)(&l, bad[i].json,
                                                                                            strlen(bad[i].json), &e);
        assert_int_equal(rc, -1);
        if (!strstr(e.text, bad[i].says)) fail_msg("%s: %s", bad[i].json, e.text);
        assert_int_equal(l.n, 0);
    }
}

static void listings_of_modelscope(void **state) {
    (void)state;
    static const char json[] =
        "{\"Code\":200,\"Success\":true,\"Data\":{\"Files\":[{\"Path\":\"original\",\"Type\":\"tree\"},"
        "{\"Path\":\"config.json\",\"Type\":\"blob\",\"Size\":9,\"Sha256\":\"" SHA256 "\"},"
        "{\"Path\":\"b\",\"Size\":-1,\"Sha256\":\"\"}]}}";
    struct hub_listing l;
    struct err e = {0};
    assert_int_equal(listing_parse_modelscope(&l, json, strlen(json), &e), 0);
    assert_int_equal(l.n, 2);
    assert_true(listing_find(&l, "config.json")->kind == HUB_SUM_SHA256);
    assert_true(listing_find(&l, "b")->size == SIZE_MAX && listing_find(&l, "b")->kind == HUB_SUM_NONE);
    listing_release(&l);
}

static void names(void **state) {
    (void)state;
    static const char *const good[] = {"Qwen/Qwen3-0.6B", "gpt2", "a/b", "meta-llama/Llama-3.1-8B-Instruct",
                                       "a_b/c.d_e"};
    static const char *const bad[] = {"",     "/",    "a/",   "/a",    "a/b/c", "../a",   "a/..",  "a--b/c", "-a/b",
                                      "a/b-", ".a/b", "a/b.", "a b/c", "a/b\n", "a..b/c", "a/b:c", "~/a"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) assert_true(hub_name_valid(good[i], HUB_HUGGINGFACE));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_false(hub_name_valid(bad[i], HUB_HUGGINGFACE));
    assert_false(hub_name_valid("gpt2", HUB_MODELSCOPE));
    assert_true(hub_revision_valid("main") && hub_revision_valid("refs/pr/1") && hub_revision_valid(SHA1) &&
                hub_revision_valid("v1.0+x"));
    assert_false(hub_revision_valid("") || hub_revision_valid("../x") || hub_revision_valid("a/../b") ||
                 hub_revision_valid("/a") || hub_revision_valid("a/") || hub_revision_valid("a//b") ||
                 hub_revision_valid("a b") || hub_revision_valid(".git"));
    assert_true(hub_name_safe("model-00001-of-00002.safetensors"));
    assert_false(hub_name_safe("") || hub_name_safe(".x") || hub_name_safe("a/b") || hub_name_safe("..") ||
                 hub_name_safe("a\\b"));
    assert_true(hub_file_wanted("config.json", HUB_CONFIG) && !hub_file_wanted("tokenizer.json", HUB_CONFIG));
    assert_true(hub_file_wanted("tokenizer.json", HUB_TEXT) && !hub_file_wanted("sub/tokenizer.json", HUB_TEXT));
    assert_false(hub_file_wanted("model.safetensors", HUB_TEXT | HUB_WEIGHTS) ||
                 hub_file_wanted("pytorch_model.bin", 3));
}

static void paths(void **state) {
    (void)state;
    struct hub_settings s = {.home = "/h"};
    struct layout l;
    struct err e = {0};
    struct layout_paths p;
    struct hub_file f = {.name = "tokenizer.json", .sum = SHA1, .kind = HUB_SUM_GIT};
    assert_int_equal(layout_init(&l, &s, "a/b", &e), 0);
    layout_paths(&l, &f, &p);
    assert_string_equal(p.whole, "/h/.cache/huggingface/hub/models--a--b/blobs/" SHA1);
    assert_string_equal(p.part, "/h/.cache/huggingface/hub/models--a--b/blobs/" SHA1 ".incomplete");
    assert_string_equal(p.lock, "/h/.cache/huggingface/hub/.locks/models--a--b/" SHA1 ".lock");
    layout_paths_release(&p);
    layout_release(&l);
    static const struct {
        struct hub_settings s;
        const char *cache;
    } caches[] = {{{.home = "/h", .cache_home = "/c"}, "/c/huggingface/hub"},
                  {{.home = "/h", .cache_home = "/c", .hf_home = "~/x"}, "/h/x/hub"},
                  {{.home = "/h", .hf_home = "/x", .hf_cache = "~"}, "/h"},
                  {{.hf_cache = "/y"}, "/y"},
                  {{.source = HUB_MODELSCOPE, .home = "/h"}, "/h/.cache/modelscope"},
                  {{.source = HUB_MODELSCOPE, .home = "/h", .ms_cache = "/m"}, "/m"}};
    for (size_t i = 0; i < sizeof caches / sizeof *caches; i++) {
        assert_int_equal(layout_init(&l, &caches[i].s, "a/b", &e), 0);
        assert_string_equal(l.cache, caches[i].cache);
        layout_release(&l);
    }
    s = (struct hub_settings){0};
    assert_int_equal(layout_init(&l, &s, "a/b", &e), -1);
    assert_non_null(strstr(e.text, "HF_HOME"));
    s = (struct hub_settings){.source = HUB_MODELSCOPE, .ms_cache = "/m"};
    assert_int_equal(layout_init(&l, &s, "Qwen/Qwen3-0.6B", &e), 0);
    layout_paths(&l, &f, &p);
    assert_string_equal(p.whole, "/m/models/Qwen--Qwen3-0.6B/snapshots/master/tokenizer.json");
    /* as modelscope_hub 0.5.1 names it */
    assert_string_equal(p.lock, "/m/.lock/file_7c77d8226d6a49f5eb9a6ee244d83c3fcd993c27db22207096a019055f18ee2b.lock");
    layout_paths_release(&p);
    layout_release(&l);
}

static void checksums(void **state) {
    (void)state;
    struct digest d;
    char hex[65];
    digest_init(&d, HUB_SUM_SHA256, 3);
    digest_add(&d, "a", 1);
    digest_add(&d, "bc", 2);
    digest_end(&d, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    digest_init(&d, HUB_SUM_GIT, 6);
    digest_add(&d, "hello\n", 6);
    digest_end(&d, hex);
    assert_string_equal(hex, "ce013625030ba8dba906f756967f9e9ca394464a"); /* echo hello | git hash-object --stdin */
    digest_init(&d, HUB_SUM_NONE, 0);
    digest_add(&d, "x", 1);
    digest_end(&d, hex);
    assert_string_equal(hex, "");
}

/* ---- what a folder lacks ---- */

static void put(const char *dir, const char *name, const char *text) {
    char *path = path_join(dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    free(path);
}

static void lacks(const char *dir, const struct hub_listing *l, unsigned need, const char *what) {
    char *missing = layout_missing(dir, l, need);
    if (what) assert_non_null(missing);
    if (what)
        assert_string_equal(missing, what);
    else
        assert_null(missing);
    free(missing);
}

static void folders(void **state) {
    (void)state;
    char dir[] = "/tmp/test_hub.XXXXXX", clean[100];
    assert_non_null(mkdtemp(dir));
    lacks(dir, NULL, HUB_CONFIG, "config.json");
    put(dir, "config.json", "{}");
    lacks(dir, NULL, HUB_CONFIG, NULL);
    lacks(dir, NULL, HUB_TEXT, "tokenizer.json");
    put(dir, "tokenizer.json", "{}");
    lacks(dir, NULL, HUB_TEXT, NULL);
    lacks(dir, NULL, HUB_TEXT | HUB_WEIGHTS, "model.safetensors.index.json");
    put(dir, "model.safetensors.index.json",
        "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\",\"c\":\"one.safetensors\"}}");
    lacks(dir, NULL, HUB_WEIGHTS, "one.safetensors");
    put(dir, "one.safetensors", "1");
    assert_int_equal(chdir(dir), 0);
    assert_int_equal(symlink("nowhere", "two.safetensors"), 0); /* a link to a blob that is gone */
    lacks(dir, NULL, HUB_WEIGHTS, "two.safetensors");
    assert_int_equal(unlink("two.safetensors"), 0);
    put(dir, "two.safetensors", "22");
    lacks(dir, NULL, HUB_WEIGHTS, NULL);
    static const char tree[] =
        "{\"format_version\":1,\"files\":{\"config.json\":{\"size\":2,\"blob_id\":\"" SHA1 "\"},"
        "\"one.safetensors\":{\"size\":1,\"blob_id\":\"" SHA1 "\"},\"two.safetensors\":{\"size\":3,\"blob_id\":\"" SHA1
        "\"},\"chat_template.jinja\":{\"size\":1,\"blob_id\":\"" SHA1 "\"}}}";
    struct hub_listing l;
    struct err e = {0};
    assert_int_equal(listing_parse_tree(&l, SHA1, tree, strlen(tree), &e), 0);
    lacks(dir, &l, HUB_CONFIG, NULL);
    lacks(dir, &l, HUB_TEXT, "chat_template.jinja");
    lacks(dir, &l, HUB_WEIGHTS, "two.safetensors"); /* it has two bytes of three */
    listing_release(&l);
    put(dir, "model.safetensors.index.json", "{\"weight_map\":{\"a\":\"../x\"}}");
    lacks(dir, NULL, HUB_WEIGHTS, "model.safetensors.index.json");
    put(dir, "model.safetensors", "");
    lacks(dir, NULL, HUB_WEIGHTS, NULL);
    snprintf(clean, sizeof clean, "rm -r %s", dir);
    assert_int_equal(chdir("/"), 0);
    assert_int_equal(system(clean), 0);
}

static void words(void **state) {
    (void)state;
    char s[24];
    assert_string_equal(size_words(s, 0), "0 bytes");
    assert_string_equal(size_words(s, 999), "999 bytes");
    assert_string_equal(size_words(s, 1000), "1.00 kB");
    assert_string_equal(size_words(s, 999600), "1.00 MB");
    assert_string_equal(size_words(s, 16.06e9), "16.1 GB");
    assert_string_equal(size_words(s, 4e15), "4000 TB");
    assert_string_equal(time_words(s, 3.21), "3.2 s");
    assert_string_equal(time_words(s, 59.6), "60 s");
    assert_string_equal(time_words(s, 600), "10 min");
    assert_string_equal(time_words(s, 7200), "2.0 h");
    assert_string_equal(time_words(s, 1e30), "days");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(listings_of_huggingface),
        cmocka_unit_test(listings_that_are_refused),
        cmocka_unit_test(listings_of_modelscope),
        cmocka_unit_test(names),
        cmocka_unit_test(paths),
        cmocka_unit_test(checksums),
        cmocka_unit_test(folders),
        cmocka_unit_test(words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
