/* test_safetensors.c: the format's rules, one bad file for each, and checkpoints of several files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "model/safetensors.h"
#include "model_data.h"

static size_t file_bytes(char *out, size_t header, const char *json, size_t data) {
    for (int i = 0; i < 8; i++) out[i] = (char)((uint64_t)header >> 8 * i);
    size_t n = strlen(json);
    memcpy(out + 8, json, n);
    for (size_t i = 0; i < data; i++) out[8 + n + i] = (char)i;
    return 8 + n + data;
}

struct seen {
    int n;
    char names[8][32];
    struct tensor t[8];
};

static int collect(void *arg, const struct tensor *t, struct err *e) {
    struct seen *s = arg;
    (void)e;
    if (s->n < 8) {
        snprintf(s->names[s->n], sizeof *s->names, "%s", t->name);
        s->t[s->n] = *t;
    }
    s->n++;
    return 0;
}

/* In exactly as many heap bytes as there are, so that a read beyond them is seen by the sanitizer. */
static int parse(const char *bytes, size_t n, struct seen *s, struct err *e) {
    char *exact = malloc(n ? n : 1);
    memcpy(exact, bytes, n);
    *s = (struct seen){0};
    *e = (struct err){0};
    int rc = safetensors_parse(exact, n, "x.safetensors", collect, s, e);
    for (int i = 0; i < s->n && i < 8; i++) s->t[i].data = (const void *)((const char *)s->t[i].data - exact);
    free(exact);
    return rc;
}

static void reads_good_files(void **state) {
    (void)state;
    char b[1000];
    struct seen s;
    struct err e;
    const char *json =
        "{\"__metadata__\":{\"format\":\"pt\"},\"b\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[2,10]},"
        "\"a\\u00e9\":{\"shape\":[],\"data_offsets\":[0,2],\"dtype\":\"BF16\"},"
        "\"z\":{\"dtype\":\"I64\",\"shape\":[3,0],\"data_offsets\":[10,10]}}   ";
    size_t n = file_bytes(b, strlen(json), json, 10);
    if (parse(b, n, &s, &e)) fail_msg("%s", e.text);
    assert_int_equal(s.n, 3);
    assert_string_equal(s.names[0], "a\xc3\xa9");
    assert_string_equal(s.t[0].dtype, "BF16");
    assert_int_equal(s.t[0].n_dims, 0);
    assert_int_equal(s.t[0].bytes, 2);
    assert_string_equal(s.names[1], "b");
    assert_int_equal(s.t[1].dims[0], 2);
    assert_int_equal((uintptr_t)s.t[1].data, 8 + strlen(json) + 2);
    assert_int_equal(s.t[2].bytes, 0);
    n = file_bytes(b, 2, "{}", 0);
    assert_int_equal(parse(b, n, &s, &e), 0);
    assert_int_equal(s.n, 0);
}

#define T(name, dtype, shape, from, to)                                                                                \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #from "," #to "]}"

static void refuses_each_bad_header(void **state) {
    (void)state;
    static const struct {
        const char *json;
        size_t data;
        const char *says;
    } bad[] = {
        {"[]", 0, "must begin with {"},
        {" {}", 0, "must begin with {"},
        {"{", 0, "header"},
        {"{}}", 0, "not valid JSON"},
        {"{} x", 0, "not valid JSON"},
        {"{\"a\":1}", 0, "found a number"},
        {"{\"a\":null}", 0, "found null"},
        {"{\"a\":true}", 0, "found true"},
        {"{\"a\":[]}", 0, "found an array"},
        {"{\"a\":\"x\"}", 0, "found a string"},
        {"{\"a\":{}}", 0, "needs a dtype, a shape and two data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 0, "needs a dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "needs a dtype"},
        {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "needs a dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "two data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4, "more than two data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", 4, "unknown or repeated field x"},
        {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
         "repeated field dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[[1]],\"data_offsets\":[0,4]}}", 4, "tensor a has an array"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":{},\"data_offsets\":[0,4]}}", 4, "tensor a has an object"},
        {"{\"a\":{\"dtype\":32,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "a dtype string"},
        {"{" T("a", "F31", "[1]", 0, 4) "}", 4, "unknown dtype F31"},
        {"{" T("a", "f32", "[1]", 0, 4) "}", 4, "unknown dtype f32"},
        {"{" T("a", "F32", "[-1]", 0, 4) "}", 4, "has -1 where a size belongs"},
        {"{" T("a", "F32", "[1.0]", 0, 4) "}", 4, "has 1.0 where a size belongs"},
        {"{" T("a", "F32", "[1e0]", 0, 4) "}", 4, "where a size belongs"},
        {"{" T("a", "F32", "[9223372036854775808]", 0, 4) "}", 4, "where a size belongs"},
        {"{" T("a", "F32", "[1,1,1,1,1,1,1,1,1]", 0, 4) "}", 4, "more than 8 dimensions"},
        {"{" T("a", "F32", "[4294967296,4294967296]", 0, 0) "}", 0, "impossible"},
        {"{" T("a", "F32", "[4294967296,4294967296]", 0, 4) "}", 4, "impossible"},
        {"{" T("a", "F32", "[4611686018427387904]", 0, 0) "}", 0, "impossible"},
        {"{" T("a", "F4", "[3]", 0, 2) "}", 2, "impossible"},
        {"{" T("a", "F32", "[1]", 0, 5) "}", 5, "needs 4 bytes for its shape, and its offsets are 0 to 5"},
        {"{" T("a", "F32", "[1]", 4, 0) "}", 4, "needs 4 bytes"},
        {"{" T("a", "F32", "[2]", 0, 4) "}", 4, "needs 8 bytes"},
        {"{" T("a", "F32", "[0]", 0, 4) "}", 4, "needs 0 bytes"},
        {"{" T("a", "F32", "[1]", 4, 8) "}", 8, "must begin at 0"},
        {"{" T("a", "F32", "[1]", 0, 4) "," T("b", "F32", "[1]", 8, 12) "}", 12,
         "tensor b begins at 8 and must begin at 4"},
        {"{" T("a", "F32", "[1]", 0, 4) "," T("b", "F32", "[1]", 2, 6) "}", 6, "begins at 2 and must begin at 4"},
        {"{" T("a", "F32", "[1]", 0, 4) "," T("b", "F32", "[1]", 0, 4) "}", 4, "must begin at 4"},
        {"{" T("a", "F32", "[1]", 0, 4) "," T("a", "F32", "[1]", 4, 8) "}", 8, "names tensor a twice"},
        {"{" T("a", "F32", "[2]", 0, 8) "}", 7, "truncated"},
        {"{" T("a", "F32", "[2]", 0, 8) "}", 0, "truncated"},
        {"{" T("a", "F32", "[1]", 0, 4) "}", 5, "too long"},
        {"{}", 1, "too long"},
        {"{\"__metadata__\":{\"a\":1}}", 0, "__metadata__ must hold strings only"},
        {"{\"__metadata__\":{\"a\":{}}}", 0, "__metadata__ must hold strings only"},
        {"{\"__metadata__\":7}", 0, "__metadata__"},
        {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "twice"},
        {"{\"a\\u0000b\":{}}", 0, "NUL"},
        {"{\"\xff\":{}}", 0, "not valid JSON"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char b[1000];
        struct seen s;
        struct err e;
        size_t n = file_bytes(b, strlen(bad[i].json), bad[i].json, bad[i].data);
        if (!parse(b, n, &s, &e)) fail_msg("accepted %s", bad[i].json);
        assert_int_equal(s.n, 0); /* nothing is handed out of a bad file */
        assert_non_null(strstr(e.text, "x.safetensors"));
        if (!strstr(e.text, bad[i].says))
            fail_msg("%s is refused with '%s', not '%s'", bad[i].json, e.text, bad[i].says);
    }
}

static void refuses_bad_header_sizes(void **state) {
    (void)state;
    static const struct {
        size_t size;
        const char *says;
    } bad[] = {{0, "must begin"}, {1, "must begin"},     {100000001, "at most 100000000"}, {100000000, "truncated"},
               {4, "truncated"},  {SIZE_MAX, "at most"}, {SIZE_MAX - 7, "at most"}};
    char b[100];
    struct seen s;
    struct err e;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        size_t n = file_bytes(b, bad[i].size, "{}", 0);
        assert_int_equal(parse(b, n, &s, &e), -1);
        if (!strstr(e.text, bad[i].says)) fail_msg("size %zu: %s", bad[i].size, e.text);
    }
    for (size_t n = 0; n < 8; n++) assert_int_equal(parse("\2\0\0\0\0\0\0\0", n, &s, &e), -1);
    const char *lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:0\n";
    assert_int_equal(parse(lfs, strlen(lfs), &s, &e), -1);
    assert_non_null(strstr(e.text, "Git LFS"));
}

static void every_truncation_is_refused(void **state) {
    (void)state;
    char b[1000];
    struct seen s;
    struct err e;
    const char *json = "{" T("a", "F32", "[2]", 0, 8) "," T("b", "U8", "[5]", 8, 13) "}";
    size_t n = file_bytes(b, strlen(json), json, 13);
    assert_int_equal(parse(b, n, &s, &e), 0);
    for (size_t k = 0; k < n; k++) assert_int_equal(parse(b, k, &s, &e), -1);
}

static void deep_nesting_is_refused(void **state) {
    (void)state;
    static char b[200100];
    struct seen s;
    struct err e;
    static const char *const openers[] = {"[", "{\"a\":"};
    for (int k = 0; k < 2; k++) {
        size_t at = 8, width = strlen(openers[k]);
        memcpy(b + at, "{\"a\":{\"shape\":", 14);
        for (at += 14; at + width < 200000; at += width) memcpy(b + at, openers[k], width);
        for (int i = 0; i < 8; i++) b[i] = (char)((uint64_t)(at - 8) >> 8 * i);
        assert_int_equal(parse(b, at, &s, &e), -1);
    }
}

/* ---- checkpoints ---- */

static void write_one(const char *dir, const char *file, const char *json, size_t data) {
    char b[2000];
    size_t n = file_bytes(b, strlen(json), json, data);
    model_file_write(dir, file, b, n);
}

static void refused_open(const char *dir, const char *says) {
    struct checkpoint *c;
    struct err e = {0};
    if (!checkpoint_open(&c, dir, &e)) fail_msg("opened, instead of '%s'", says);
    if (!strstr(e.text, says)) fail_msg("refused with '%s', not '%s'", e.text, says);
}

static void index_of(const char *dir, const char *json) {
    model_file_write(dir, "model.safetensors.index.json", json, strlen(json));
}

static void checkpoints_of_several_files(void **state) {
    (void)state;
    char *dir = model_dir_make();
    struct checkpoint *c;
    struct err e = {0};
    refused_open(dir, "has no weights");
    write_one(dir, "s1.safetensors", "{" T("b", "F32", "[1]", 0, 4) "}", 4);
    write_one(dir, "s2.safetensors", "{" T("a", "U8", "[3]", 0, 3) "," T("c", "U8", "[1]", 3, 4) "}", 4);
    index_of(dir, "{\"metadata\":{},\"weight_map\":{\"a\":\"s2.safetensors\",\"b\":\"s1.safetensors\",\"c\":\"s2."
                  "safetensors\"}}");
    if (checkpoint_open(&c, dir, &e)) fail_msg("%s", e.text);
    assert_int_equal(checkpoint_count(c), 3);
    assert_int_equal(checkpoint_bytes(c), 8);
    assert_string_equal(checkpoint_at(c, 0)->name, "a");
    assert_string_equal(checkpoint_at(c, 1)->file, "s1.safetensors");
    assert_null(checkpoint_at(c, 3));
    assert_int_equal(((const char *)checkpoint_find(c, "c")->data)[0], 3);
    assert_null(checkpoint_find(c, "d"));
    checkpoint_close(c);
    static const struct {
        const char *json, *says;
    } bad[] = {
        {"[]", "must hold a JSON object"},
        {"{}", "weight_map is missing"},
        {"{\"weight_map\":[]}", "weight_map must be an object"},
        {"{\"weight_map\":{}}", "weight_map is empty"},
        {"{\"weight_map\":{\"a\":7}}", "must name a file for tensor a"},
        {"{\"weight_map\":{\"a\":\"../s2.safetensors\"}}", "must lie in the checkpoint's own folder"},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "own folder"},
        {"{\"weight_map\":{\"a\":\"..\"}}", "own folder"},
        {"{\"weight_map\":{\"a\":\"\"}}", "own folder"},
        {"{\"weight_map\":{\"a\":\"s3.safetensors\"}}", "cannot open"},
        {"{\"weight_map\":{\"a\":\"s2.safetensors\"}}",
         "tensor c lies in s2.safetensors, and weight_map says nothing of it"},
        {"{\"weight_map\":{\"a\":\"s1.safetensors\",\"b\":\"s1.safetensors\",\"c\":\"s2.safetensors\"}}",
         "tensor a lies in s2.safetensors, and weight_map says s1.safetensors"},
        {"{\"weight_map\":{\"a\":\"s2.safetensors\",\"d\":\"s2.safetensors\",\"c\":\"s2.safetensors\"}}",
         "tensor d is not in s2.safetensors"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        index_of(dir, bad[i].json);
        refused_open(dir, bad[i].says);
    }
    model_dir_remove(dir);
}

static void links_and_other_files(void **state) {
    (void)state;
    char *dir = model_dir_make();
    char path[128], blob[128];
    struct checkpoint *c;
    struct err e = {0};
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    snprintf(blob, sizeof blob, "%s/blob", dir);
    write_one(dir, "blob", "{" T("a", "U8", "[1]", 0, 1) "}", 1);
    assert_int_equal(symlink("blob", path), 0); /* as the Hugging Face cache has it */
    if (checkpoint_open(&c, dir, &e)) fail_msg("%s", e.text);
    assert_string_equal(checkpoint_at(c, 0)->file, "model.safetensors");
    checkpoint_close(c);
    unlink(blob);
    refused_open(dir, "No such file");
    assert_int_equal(symlink("model.safetensors", blob), 0);
    refused_open(dir, "symbolic links");
    unlink(path);
    assert_int_equal(symlink("/dev/zero", path), 0);
    refused_open(dir, "not a regular file");
    unlink(path);
    assert_int_equal(mkdir(path, 0777), 0);
    refused_open(dir, "not a regular file");
    rmdir(path);
    model_file_write(dir, "model.safetensors", "", 0);
    refused_open(dir, "has 0 bytes");
    model_dir_remove(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_good_files),         cmocka_unit_test(refuses_each_bad_header),
        cmocka_unit_test(refuses_bad_header_sizes), cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(deep_nesting_is_refused),  cmocka_unit_test(checkpoints_of_several_files),
        cmocka_unit_test(links_and_other_files),
    };
    return cmocka_run_group_tests_name("safetensors", tests, NULL, NULL);
}
