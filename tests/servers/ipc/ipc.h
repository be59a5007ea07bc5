/* Shared by the rounds of the server of interprocess communication. */
#ifndef IPC_H
#define IPC_H

#include "../server.h"
#include <sys/types.h>

enum { CHILDREN = 4, ROUNDS = 25 };

/* The program itself, to be executed, and a file of this round alone. */
extern const char *self;
extern char path[256];

/* Interrupts a call that waits. Again and again, since the first may come before the call. */
void interrupt_soon(void);

/* Adds one to the number at the start of a file, slowly. */
void count_in(int file);

/* Children that all do the same; how many of them ended well. */
int all_do(void (*what)(int), int argument);

int reap(pid_t child);
int opened(int flags);
void interrupt_no_more(void);
unsigned counted(int file);

/* The rounds. */
void flocks(void);
void records(void);
void fifos(void);
void semaphores(void);
void messages(void);
void memory(void);

#endif
