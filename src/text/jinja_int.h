/* jinja_int.h: what the jinja_*.c files share: memory, values, the tree, the running template.
 *
 * Trouble leaves by longjmp: jx_fail() goes back to the one setjmp of jinja_compile or jinja_render. That is safe
 * here, and only here, because everything made on the way lies in one arena that the catcher releases. So no function
 * of these files may own heap memory, a file or a lock across a call of another. */
#ifndef MINISGL_TEXT_JINJA_INT_H
#define MINISGL_TEXT_JINJA_INT_H
#include "text/jinja.h"

#include <setjmp.h>
#include <string.h>

/* ---- memory ---- */

struct arena_chunk;
struct jx { /* the base of a compilation and of a render: an arena, a budget, a way out */
    struct arena_chunk *chunks;
    char *at, *end;
    size_t used, max;
    int64_t steps; /* left */
    int depth;     /* native nesting */
    int line;      /* of the statement at work; 0: unknown */
    enum jinja_fault fault;
    struct err *err;
    jmp_buf out;
};

void *jx_alloc(struct jx *x, size_t n); /* aligned to 16, not zeroed */
void *jx_zalloc(struct jx *x, size_t n);
void *jx_array(struct jx *x, size_t n, size_t size); /* product checked */
void jx_release(struct jx *x);
_Noreturn void jx_fail(struct jx *x, enum jinja_fault fault, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void jx_charge(struct jx *x, size_t steps); /* fails when the budget is gone */
void jx_enter(struct jx *x);                /* one level deeper; fails at JINJA_MAX_DEPTH */
static inline void jx_leave(struct jx *x) { x->depth--; }

#define NEW(x, type) ((type *)jx_zalloc((x), sizeof(type)))

/* ---- values ---- */

enum vtype {
    V_MISSING, /* no value: an unset slot, an argument that was not given */
    V_UNDEF,
    V_NONE,
    V_BOOL,
    V_INT,
    V_FLOAT,
    V_STR,
    V_LIST,
    V_TUPLE,
    V_DICT,
    V_RANGE,
    V_NS,
    V_ITER,
    V_VIEW,
    V_FUNC,
    V_METHOD,
    V_MACRO,
    V_LOOP,
    V_CYCLER,
    V_JOINER,
    V_SLICE
};

struct val {
    enum vtype t;
    union {
        bool b;
        int64_t i;
        double f;
        struct str *s;
        struct list *l; /* V_LIST, V_TUPLE */
        struct dict *d; /* V_DICT, V_NS */
        struct undef *u;
        struct range *r;
        struct iter *it;
        struct view *view;
        struct method *m;
        struct macro *macro;
        struct loop *loop;
        struct cycler *cycler;
        struct joiner *joiner;
        struct val *slice; /* start, stop, step; V_MISSING where absent */
        int func;
    };
};

struct run { /* provenance of a mixed string: bytes up to `end` */
    size_t end;
    bool trusted;
};

enum { UNTRUSTED = 0, TRUSTED = 1, MIXED = 2 };

struct str {
    const char *p; /* UTF-8, not NUL-terminated */
    size_t n;
    size_t chars; /* code points; SIZE_MAX: not counted yet */
    const struct run *runs;
    size_t nruns;
    uint8_t trust;
    bool markup; /* made by escape or safe: + and join escape what is added */
};

struct list {
    struct val *v;
    size_t n;
    struct list_store *store; /* NULL: v stands alone */
    bool group;               /* a pair made by groupby: has .grouper and .list */
};
struct list_store { /* a + [x] continues in place while a ends where the store ends: accumulation stays linear */
    struct val *base;
    size_t used, cap;
};

struct dent {
    struct val k, v;
    uint64_t h;
};
struct dict {
    struct dent *e;
    size_t n, cap;
    uint32_t *idx; /* open addressing, entry number + 1; NULL while small */
    size_t nidx;
};

enum undef_kind { UNDEF_NAME, UNDEF_ATTR, UNDEF_HINT, UNDEF_UNSAFE };
struct undef {
    enum undef_kind kind;
    const char *hint; /* UNDEF_HINT */
    const char *obj;  /* UNDEF_ATTR, UNDEF_UNSAFE: what the object is, in Jinja's words */
    struct val name;
};

struct range {
    int64_t start, stop, step;
    size_t n;
};

struct view { /* dict.keys(), .values(), .items() */
    struct dict *d;
    char kind; /* 'k', 'v', 'i' */
};

struct method {
    struct val self;
    int id; /* index in the method table */
};

struct cycler {
    struct val *v;
    size_t n, pos;
};
struct joiner {
    struct val sep;
    bool used;
};

/* A Python iterator: gives each element once. Generators (map, select, ...) do nothing before the first element. */
enum iter_kind {
    IT_SEQ,
    IT_STR,
    IT_RANGE,
    IT_DICT,
    IT_MAP,
    IT_SELECT,
    IT_UNIQUE,
    IT_BATCH,
    IT_SLICE,
    IT_ITEMS,
    IT_REV,
    IT_FOR,
    IT_EMPTY
};
struct call;
struct iter {
    enum iter_kind kind;
    bool started, done;
    struct val src;    /* what is iterated (IT_SEQ...) or the filter's input, kept until the first element */
    struct iter *from; /* the input, once started */
    size_t at;
    struct call *args;
    bool negate, attr; /* reject; selectattr */
    struct dict *seen;
    struct list *parts; /* IT_SLICE */
    struct node *node;  /* IT_FOR: the loop with its filter */
    struct act *act;
};

struct call { /* arguments of a call */
    struct val *pos;
    size_t n;
    struct str **kw;
    struct val *kwv;
    size_t nkw;
};

/* ---- the tree ---- */

enum ntype {
    /* expressions */
    N_CONST,
    N_NAME,
    N_NSREF,
    N_TUPLE,
    N_LIST,
    N_DICT,
    N_COND,
    N_OR,
    N_AND,
    N_NOT,
    N_NEG,
    N_POS,
    N_COMPARE,
    N_BIN,
    N_CONCAT,
    N_ATTR,
    N_ITEM,
    N_SLICE,
    N_CALL,
    N_FILTER,
    N_TEST,
    /* statements */
    N_DATA,
    N_OUTPUT,
    N_FOR,
    N_IF,
    N_SET,
    N_SETBLOCK,
    N_WITH,
    N_MACRO,
    N_CALLBLOCK,
    N_FILTERBLOCK,
    N_BLOCK,
    N_GENERATION,
    N_BREAK,
    N_CONTINUE,
    N_AUTOESCAPE,
    N_NOLOAD
};

enum op {
    OP_ADD,
    OP_SUB,
    OP_MUL,
    OP_DIV,
    OP_FLOORDIV,
    OP_MOD,
    OP_POW,
    OP_EQ,
    OP_NE,
    OP_LT,
    OP_LE,
    OP_GT,
    OP_GE,
    OP_IN,
    OP_NOTIN
};

struct nodes {
    struct node **v;
    size_t n, cap;
};

enum load { LOAD_UNDEF, LOAD_RESOLVE, LOAD_ALIAS, LOAD_PARAM };
struct sym { /* a name a scope has a slot for */
    struct str *name;
    int slot;
    enum load load;
    int hops, from; /* LOAD_ALIAS: where the outer value is */
};
struct scope {
    struct scope *up;
    struct func *func;
    struct sym *syms;
    size_t n, cap;
};
struct func { /* a macro, a block, the template: one activation record */
    struct func *up;
    int nslots;
};

struct node {
    enum ntype t;
    enum op op;
    int line;
    int depth;        /* of this tree */
    struct str *name; /* N_NAME, N_NSREF object, N_ATTR, N_FILTER, N_TEST, N_MACRO, N_BLOCK */
    struct str *attr; /* N_NSREF */
    struct val v;     /* N_CONST, N_DATA */
    struct node *a, *b, *c;
    struct nodes list;        /* items; positional arguments; macro parameters; with targets */
    struct nodes vals;        /* dict values; keyword values; parameter defaults; with values; comparison operands */
    struct nodes body, other; /* statements; else branch or elif nodes */
    struct str **kw;          /* keyword names, vals.n of them; comparison operators are in ops */
    enum op *ops;
    struct node *dyn, *dynkw;
    int hops, slot; /* N_NAME: activation records up, slot; slot -1: only the context has it */
    int loop_slot, caller_slot, kwargs_slot, varargs_slot; /* -1: not used */
    int id;                                                /* filter, test number; -1 unknown, an error when it runs */
    bool store, recursive, explicit_caller, scoped;
    struct scope *scope, *scope2; /* body, else or filter test */
    struct func *func;
};

struct jinja {
    struct jx x; /* only its arena is used after compilation */
    struct nodes body;
    struct scope *scope;
    struct func *func;
    struct nodes blocks;
    struct str **names; /* every name mentioned */
    size_t nnames, capnames;
};

/* ---- a running template ---- */

struct act {
    struct act *up;
    struct val *slots;
};

struct macro {
    struct node *node;
    struct act *act;  /* where it was defined */
    struct str *name; /* NULL: caller */
};

struct loop {
    struct iter *it;
    struct val iterable;
    int64_t index0, length; /* length -1: unknown */
    int depth0;
    struct val before, current, after, changed; /* after V_MISSING: not peeked */
    bool after_end, has_changed;
    struct node *node; /* for recursive calls */
    struct act *act;
};

struct sb { /* a string being built, with provenance */
    struct jx *x;
    char *p;
    size_t n, cap;
    struct run *runs;
    size_t nruns, capruns;
    bool markup;
};

struct rt {
    struct jx x;
    const struct jinja *t;
    struct dict *context; /* variables and globals */
    struct act *root;
    struct sb *out;
    const struct jinja_args *args;
    uint64_t seed;
    int calls;
    bool autoescape;
    bool in_message; /* cstr_repr is at work: what has no text of its own is named */
};

/* jinja_lex.c / jinja_parse.c, jinja_expr.c / jinja_scope.c */
enum tok { T_EOF, T_DATA, T_VAR_BEGIN, T_VAR_END, T_BLOCK_BEGIN, T_BLOCK_END, T_NAME, T_STRING, T_INT, T_FLOAT, T_OP };
struct token {
    enum tok t;
    int line;
    const char *op; /* T_OP: "+", "//", ... */
    struct str *s;  /* T_NAME, T_STRING, T_DATA */
    struct val v;   /* T_INT, T_FLOAT */
};
struct token *jinja_lex(struct jx *x, const char *source, size_t n, size_t *count);
void jinja_parse(struct jinja *t, struct token *tokens, size_t count);
void jinja_resolve(struct jinja *t);
_Noreturn void jinja_syntax(struct jx *x, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
bool node_is_target(const struct node *n);

/* jinja_value.c */
struct str *str_new(struct jx *x, const char *p, size_t n, int trust);        /* p is not copied */
struct str *str_copy(struct jx *x, const char *p, size_t n, int trust);       /* p is copied */
struct str *str_z(struct jx *x, const char *literal);                         /* a C literal, trusted */
struct str *str_sub(struct jx *x, const struct str *s, size_t off, size_t n); /* bytes; shares the memory */
size_t str_chars(const struct str *s);
size_t str_offset(const struct str *s, size_t index); /* byte offset of a code point, index <= chars */
bool str_is(const struct str *s, const char *z);
bool str_eq(const struct str *a, const struct str *b);
int str_cmp(const struct str *a, const struct str *b); /* by code points; -1, 0, 1 */

void sb_init(struct sb *b, struct jx *x);
void sb_raw(struct sb *b, const char *p, size_t n, bool trusted);
void sb_z(struct sb *b, const char *z, bool trusted);
void sb_str(struct sb *b, const struct str *s);
void sb_sub(struct sb *b, const struct str *s, size_t off, size_t n);
void sb_cp(struct sb *b, uint32_t cp, bool trusted);
void sb_pad(struct sb *b, const struct str *fill, size_t times);
struct str *sb_take(struct sb *b);

static inline struct val v_none(void) { return (struct val){.t = V_NONE}; }
static inline struct val v_missing(void) { return (struct val){.t = V_MISSING}; }
static inline struct val v_bool(bool b) { return (struct val){.t = V_BOOL, .b = b}; }
static inline struct val v_int(int64_t i) { return (struct val){.t = V_INT, .i = i}; }
static inline struct val v_float(double f) { return (struct val){.t = V_FLOAT, .f = f}; }
static inline struct val v_str(struct str *s) { return (struct val){.t = V_STR, .s = s}; }
static inline struct val v_z(struct jx *x, const char *z) { return v_str(str_z(x, z)); }
struct val v_list(struct jx *x, struct val *v, size_t n, bool tuple); /* takes v */
struct val v_pair(struct jx *x, struct val a, struct val b);
struct val v_undef_name(struct jx *x, struct str *name);
struct val v_undef_hint(struct jx *x, const char *hint);
struct val v_undef_attr(struct jx *x, struct val obj, struct val name, bool unsafe);
_Noreturn void fail_undef(struct jx *x, const struct undef *u);

struct vec { /* values being collected */
    struct val *v;
    size_t n, cap;
};
void vec_add(struct jx *x, struct vec *a, struct val v);
struct val list_concat(struct jx *x, struct val a, struct val b);
struct val list_slice(struct jx *x, struct val l, size_t from, size_t n);

struct dict *dict_new(struct jx *x);
struct val *dict_get(struct rt *rt, struct dict *d, struct val k); /* NULL: not there; fails for unhashable keys */
struct val *dict_find(struct dict *d, const struct str *name);
void dict_set(struct rt *rt, struct dict *d, struct val k, struct val v);
void dict_append(struct jx *x, struct dict *d, struct val k, struct val v); /* the key is known to be new */
bool hashable(struct val v);

const char *type_name(struct val v); /* Python's: 'str', 'int', ... */
bool truthy(struct rt *rt, struct val v);
bool val_eq(struct rt *rt, struct val a, struct val b);
int val_order(struct rt *rt, struct val a, struct val b, const char *op); /* <0, 0, >0, 2: unordered (NaN) */
bool val_same(struct val a, struct val b);                                /* Python's `is` */
void val_str(struct rt *rt, struct sb *b, struct val v);
void val_repr(struct rt *rt, struct sb *b, struct val v);
struct str *to_str(struct rt *rt, struct val v);
struct str *to_repr(struct rt *rt, struct val v);
const char *cstr_repr(struct rt *rt, struct val v); /* for messages; shortened */
bool is_num(struct val v);                          /* int, float, bool */
bool as_int(struct val v, int64_t *i);              /* int or bool */
double as_double(struct val v);
int64_t need_int(struct rt *rt, struct val v);
bool int_flag(struct rt *rt, struct val v); /* false when missing; must be what Python takes for a C int */
bool val_len(struct rt *rt, struct val v, int64_t *n);
struct iter *val_iter(struct rt *rt, struct val v); /* fails when it is not iterable */
bool iterable(struct val v);
bool iter_next(struct rt *rt, struct iter *it, struct val *out);
struct vec iter_all(struct rt *rt, struct val v);
struct val v_iter(struct rt *rt, enum iter_kind kind, struct val src);

/* jinja_num.c */
void float_repr(double f, char out[40]);
void float_fixed(struct sb *b, double f, char kind, int precision, bool alt);
bool parse_float(struct jx *x, const struct str *s, double *f); /* as Python's float(str) */
bool parse_int(struct rt *rt, const struct str *s, int base, int64_t *i);
double round_half_even(double f, int64_t digits);
struct val binary(struct rt *rt, enum op op, struct val a, struct val b);
struct val negate(struct rt *rt, struct val v, bool minus);
bool compare(struct rt *rt, enum op op, struct val a, struct val b);
bool contains(struct rt *rt, struct val seq, struct val item);

/* jinja_eval.c */
struct val eval(struct rt *rt, struct act *a, struct node *n);
struct val get_attr(struct rt *rt, struct val obj, struct str *name);
struct val get_item(struct rt *rt, struct val obj, struct val key);
struct val get_slice(struct rt *rt, struct val obj, const struct val *slice);
struct val call_value(struct rt *rt, struct val f, struct call *c);
void assign(struct rt *rt, struct act *a, struct node *target, struct val v);
bool get_known_attr(struct rt *rt, struct val obj, struct str *name, struct val *out); /* false: no such attribute */
int64_t loop_length(struct rt *rt, struct loop *l);
bool loop_attr(struct rt *rt, struct loop *l, const struct str *name, struct val *out);
struct call *eval_call(struct rt *rt, struct act *a, struct node *n);
void enter_scope(struct rt *rt, struct act *a, const struct scope *s);
void escape_into(struct sb *b, const struct str *s);

/* jinja_exec.c */
struct val call_macro(struct rt *rt, struct macro *m, struct call *c);
struct val call_loop(struct rt *rt, struct loop *l, struct val iterable);
bool iter_for_next(struct rt *rt, struct iter *it, struct val *out);

/* jinja_filter.c, jinja_filter_str.c, jinja_test.c, jinja_method.c, jinja_global.c, jinja_format.c, jinja_json.c */
int filter_find(const struct str *name); /* -1: unknown */
int test_find(const struct str *name);
struct val filter_call(struct rt *rt, int id, struct val in, struct call *c);
bool test_call(struct rt *rt, int id, struct val in, struct call *c);
bool iter_filter_next(struct rt *rt, struct iter *it, struct val *out);
/* Fill out[] by the names ("value|default|boolean"; the first `need` are required) from a call; the rest V_MISSING. */
void bind_args(struct rt *rt, const char *what, const char *names, size_t need, struct call *c, struct val *out);
typedef struct val filter_fn(struct rt *rt, struct val in, struct val *a, struct call *c);
struct filter {
    const char *name;
    filter_fn *fn;
    const char *names; /* NULL: takes the call as it is */
    size_t need;
};
extern const struct filter str_filters[];
extern const size_t nstr_filters;

/* jinja_strops.c: what str methods and filters share */
struct str *str_strip(struct jx *x, struct str *s, const struct str *chars, bool left,
                      bool right); /* chars NULL: space */
struct str *str_replace(struct jx *x, struct str *s, struct str *from, struct str *to, int64_t count);
struct vec str_splitlines(struct jx *x, struct str *s, bool keep);
struct vec str_split(struct jx *x, struct str *s, struct str *sep, int64_t max, bool right); /* sep NULL: space */
struct str *str_justify(struct jx *x, struct str *s, int64_t width, struct str *fill,
                        int side); /* -1 left, 0, 1 right */
ptrdiff_t str_find(const struct str *s, const struct str *part, size_t from, size_t to, bool last); /* bytes; -1 */
struct str *str_join(struct jx *x, struct str *sep, struct vec parts);                              /* of V_STR */
struct str *str_wrap(struct rt *rt, struct str *line, int64_t width, bool break_long, struct str *sep, bool hyphens);

int method_find(struct val self, const struct str *name, bool *unsafe); /* -1: no such attribute */
struct val method_call(struct rt *rt, struct method *m, struct call *c);
struct val v_method(struct rt *rt, struct val self, int id);
const char *global_name(int id);
extern const size_t nglobals;
struct val global_call(struct rt *rt, int id, struct call *c);
struct str *format_percent(struct rt *rt, struct str *fmt, struct val args);
struct str *format_braces(struct rt *rt, struct str *fmt, struct call *c);
struct str *to_json(struct rt *rt, struct val v, bool ascii, struct val indent, struct val seps, bool sort);
struct val from_json(struct rt *rt, json_t *j, bool trusted, int depth);

/* jinja_unicode.c: Python's str methods on code points */
bool u_space(uint32_t c);
bool u_alpha(uint32_t c);
bool u_decimal(uint32_t c);
bool u_digit(uint32_t c);
bool u_numeric(uint32_t c);
bool u_alnum(uint32_t c);
bool u_lower(uint32_t c);
bool u_upper(uint32_t c);
bool u_title(uint32_t c);
bool u_printable(uint32_t c);
bool u_word(uint32_t c); /* \w */
bool u_id_start(uint32_t c);
uint32_t u_get(const char *p, size_t n, size_t *width); /* never fails: a broken byte is one character */
enum ucase { U_LOWER, U_UPPER, U_TITLE, U_CAPITALIZE, U_SWAP, U_FOLD };
struct str *u_case(struct jx *x, const struct str *s, enum ucase how);

#endif
