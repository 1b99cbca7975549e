/* cli.h: the subcommands. Each gets argv with argv[0] the subcommand's name and returns the exit code:
 * 0, 1 (broken machine), 2 (wrong request). */
#ifndef MINISGL_CLI_CLI_H
#define MINISGL_CLI_CLI_H
#include "base/err.h"
#include "opt.h"

int cmd_serve(int argc, char **argv);
int cmd_generate(int argc, char **argv);
int cmd_help(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_selftest(int argc, char **argv);
int cmd_dummy(int argc, char **argv);
int cmd_simulate(int argc, char **argv);
int cmd_template(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);
int cmd_tune(int argc, char **argv);

/* What every subcommand that loads a model does first: how the log looks, the guard for mapped files. */
void cli_begin(const struct options *o);
/* --help of one subcommand; gives exit code 0. */
int cli_help(unsigned command);
/* Say *e on standard error and give the exit code of its kind. */
int cli_fail(const struct err *e);

#endif
