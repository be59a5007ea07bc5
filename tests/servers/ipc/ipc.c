/* A server that tries what blocks in the kernel or lies there: locks on files, FIFOs, System V IPC. A letter
 * per connection says what, and it answers with what it saw. POSIX and Linux's manual pages fix every
 * answer, so a native run gives the same lines. */
#include "ipc.h"
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

const char *self;
char path[256];
static char directory[200];

int reap(pid_t child)
{
    int status = -1;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

int opened(int flags) { return open(path, flags | O_RDWR | O_CREAT, 0600); }

static void on_alarm(int signal) { (void)signal; }

void interrupt_soon(void)
{
    struct sigaction action = {.sa_handler = on_alarm};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval every = {{0, 20000}, {0, 20000}};
    setitimer(ITIMER_REAL, &every, NULL);
}

void interrupt_no_more(void)
{
    struct itimerval never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &never, NULL);
}

void count_in(int file)
{
    unsigned number = 0;
    pread(file, &number, sizeof number, 0);
    sched_yield();
    number++;
    pwrite(file, &number, sizeof number, 0);
}

unsigned counted(int file)
{
    unsigned number = 0;
    pread(file, &number, sizeof number, 0);
    return number;
}

int all_do(void (*what)(int), int argument)
{
    pid_t children[CHILDREN];
    int well = 0;
    for (int at = 0; at < CHILDREN; at++) {
        children[at] = fork();
        if (children[at] == 0) {
            what(argument);
            _exit(0);
        }
    }
    for (int at = 0; at < CHILDREN; at++)
        well += reap(children[at]) == 0;
    return well;
}

static void answer(char command)
{
    const char *temporary = getenv("TMPDIR");
    snprintf(directory, sizeof directory, "%s/ipc-XXXXXX", temporary ? temporary : "/tmp");
    mkdtemp(directory);
    snprintf(path, sizeof path, "%s/file", directory);
    switch (command) {
    case 'f': flocks(); break;
    case 'r': records(); break;
    case 'p': fifos(); break;
    case 's': semaphores(); break;
    case 'm': messages(); break;
    case 'h': memory(); break;
    default: say("what?\n");
    }
    unlink(path);
    rmdir(directory);
}

int main(int argc, char **argv)
{
    self = argv[0];
    char byte;
    if (argc > 1 && strcmp(argv[1], "sleeper") == 0) {
        write(1, "x", 1);
        return read(0, &byte, 1) != 0;
    }
    signal(SIGPIPE, SIG_IGN);
    serve(listen_on(argv[argc - 1], SOCK_CLOEXEC), SOCK_CLOEXEC, answer);
}
