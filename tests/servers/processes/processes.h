/* Shared by the rounds of the process server. */
#ifndef PROCESSES_H
#define PROCESSES_H

#include "../server.h"
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

/* The program itself, to be executed. */
extern char *self;
extern char **environ;

/* Reads to the end. */
void say_stream(const char *what, FILE *stream);

void say_end(const char *what, pid_t child);
int be_child(int argc, char **argv);

/* The rounds. */
void streams(void);
void filters(void);
void groups(void);
void waits(void);
void orphans(void);
void executions(void);
void spawns(void);
void commands(void);

#endif
