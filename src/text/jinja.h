/* jinja.h: the Jinja template language, compiled once and rendered many times.
 *
 * The language is that of Jinja2 3.1 as chat templates see it: an immutable sandbox with trim_blocks, lstrip_blocks,
 * loop controls (break, continue), {% generation %} blocks, `tojson` that is Python's json.dumps with
 * ensure_ascii=False, `raise_exception(text)` and `strftime_now(format)`. Semantics were taken from the published
 * documentation and compared with the Python package on random templates (tests/golden/test_jinja_live.py).
 *
 * Differences on purpose:
 *   integers are 64 bits wide and overflow is an error;
 *   no other template can be loaded (include, import, extends are errors when they are executed);
 *   there is no `self` and no super() (they need template inheritance);
 *   a list or dict as a key is a syntax error, whether or not it is ever evaluated;
 *   what Python prints as a memory address (generators, functions, methods) has no text: to print it is an error;
 *   the filters random, urlize and pprint, and lipsum(), are known and refuse to run;
 *   every render has a budget (below), and passing it is an error.
 *
 * Provenance: each byte of the output is `trusted` (text of the template, or made only from its constants and from
 * variables passed as trusted) or not (came from a variable). A string operation keeps the mark of each byte it
 * copies; where it cannot, the result is untrusted. The tokenizer looks for special tokens in trusted pieces only, so
 * that "<|im_start|>" typed into a message stays text.
 *
 * Threads: a struct jinja never changes after jinja_compile; any number of threads may render it at once. A render
 * owns all that it makes and gives it back before it returns. Native stack: at most about 1 MiB. */
#ifndef MINISGL_TEXT_JINJA_H
#define MINISGL_TEXT_JINJA_H
#include "base/buf.h"
#include "base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

enum {
    JINJA_MAX_SOURCE = 4 << 20,     /* bytes of a template */
    JINJA_MAX_NESTING = 100,        /* statements in statements, or brackets in brackets, in the source */
    JINJA_MAX_TREE = 400,           /* depth of one expression's tree: a + b + c + ... counts too */
    JINJA_MAX_CALLS = 100,          /* macro in macro, loop() in loop() */
    JINJA_MAX_DEPTH = 1200,         /* all of these together while rendering; also nesting of printed values */
    JINJA_MAX_STEPS = 50 * 1000000, /* expressions, statements, loop turns; long strings count by their length:
                                       100,000 messages pass, a loop over them inside a loop over them does not */
    JINJA_MAX_RANGE = 100000,       /* elements of range(); the sandbox of Jinja2 has the same limit */
    JINJA_MAX_MEMORY = 512 << 20,   /* bytes a render may hold */
    JINJA_MAX_OUTPUT = 64 << 20,    /* bytes of output, or of any one string */
};

enum jinja_fault {
    JINJA_OK,
    JINJA_SYNTAX,  /* jinja_compile: not a template */
    JINJA_RUNTIME, /* the template did something Jinja does not allow: an operator on wrong types, an undefined value */
    JINJA_RAISED,  /* the template called raise_exception; err.text is its message and nothing else */
    JINJA_LIMIT    /* a budget was passed */
};

/* Compile n bytes of UTF-8. NULL and *e (kind ERR_INPUT, "line N: ...") when it is no template. */
struct jinja *jinja_compile(const char *source, size_t n, struct err *e);
void jinja_free(struct jinja *t);

/* True when the template mentions the name anywhere (`tools`, `enable_thinking`): a hint, not a promise. */
bool jinja_mentions(const struct jinja *t, const char *name);

struct jinja_var {
    const char *name; /* NUL-terminated */
    json_t *value;    /* borrowed for the call; its strings are not copied; NULL: the variable is skipped */
    bool trusted;     /* all its strings are trusted */
};

struct jinja_args {
    const struct jinja_var *vars; /* a later one of the same name wins */
    size_t nvars;
    /* NULL or a NULL-terminated list: an untrusted string equal to one of these words counts as trusted. Used for
     * role names, which templates glue into special tokens ('<|' + role + '|>'); a word alone is no danger. */
    const char *const *words;
    const struct tm *now; /* for strftime_now; NULL: the local time */
    int64_t max_steps;    /* 0: JINJA_MAX_STEPS */
    size_t max_memory;    /* 0: JINJA_MAX_MEMORY */
};

struct jinja_piece {
    size_t offset, length; /* bytes of out.text */
    bool trusted;
};

struct jinja_out {
    struct buf text;
    struct jinja_piece *pieces; /* in order, without gaps; neighbours differ in trust */
    size_t npieces;
    enum jinja_fault fault;
};

void jinja_out_init(struct jinja_out *o);
void jinja_out_release(struct jinja_out *o);

/* Render into *o (initialised; what it held is dropped). 0, or -1 with *e (kind ERR_INPUT) and o->fault. */
int jinja_render(const struct jinja *t, const struct jinja_args *args, struct jinja_out *o, struct err *e);

#endif
