/* Programs that are executed, in every way that libc has. */
#include "processes.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

static void *nothing(void *argument)
{
    return argument;
}

/* What `self child ...` does: says what it was given, and whether it is whole. */
int be_child(int argc, char **argv)
{
    for (int at = 2; at < argc; at++)
        printf("%s ", argv[at]);
    int count = 0;
    for (char **pair = environ; *pair; pair++) {
        if (strncmp(*pair, "LD_PRELOAD=", 11) == 0)
            continue;
        count++;
        if (strncmp(*pair, "ONLY=", 5) == 0)
            printf("%s ", *pair);
    }
    if (argc > 2 && strcmp(argv[2], "count") == 0)
        printf("environment %d ", count);
    pthread_t thread;
    void *result = NULL;
    pthread_create(&thread, NULL, nothing, &count);
    pthread_join(thread, &result);
    sigset_t blocked;
    sigprocmask(SIG_BLOCK, NULL, &blocked);
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    printf("main %d thread %d child %d leader %d blocked %d ignored %d\n", getpid() == gettid(),
           result == &count, waitpid(child, NULL, 0) == child, getpgrp() == getpid(),
           sigismember(&blocked, SIGUSR1), signal(SIGUSR2, SIG_DFL) == SIG_IGN);
    return argc;
}

typedef void (*body)(void);

static int output[2];

/* Says what a child prints that runs `run`, and how it ends. */
static void say_output(const char *what, body run)
{
    pipe(output);
    pid_t child = fork();
    if (child == 0) {
        dup2(output[1], 1);
        run();
        say("%s failed %d\n", what, errno);
        _exit(99);
    }
    close(output[1]);
    char got[4096];
    size_t length = 0;
    ssize_t now;
    while ((now = read(output[0], got + length, sizeof got - length)) > 0)
        length += now;
    close(output[0]);
    say("%s: %.*s", what, (int)length, got);
    say_end(what, child);
}

static void by_execl(void)
{
    execl(self, "name", "child", "a", "b", "c", "d", "e", "f", "g", "h", NULL);
}

static void by_execv(void)
{
    char *arguments[] = {"name", "child", "v", NULL};
    execv(self, arguments);
}

static void by_execve(void)
{
    char *arguments[] = {"name", "child", "count", NULL}, *none[] = {NULL};
    execve(self, arguments, none);
}

static void by_execle(void)
{
    char *only[] = {"ONLY=this", "PATH=/nowhere", NULL};
    execle(self, "name", "child", "count", "b", "c", "d", "e", "f", NULL, only);
}

static void by_execlp(void)
{
    execlp("sh", "sh", "-c", "echo $0 $1 $2 $3 $4 $5", "null", "1", "2", "3", "4", NULL);
}

static void by_execvpe(void)
{
    char *arguments[] = {"sh", "-c", "echo $ONLY", NULL}, *only[] = {"ONLY=that", "LD_PRELOAD=", NULL};
    execvpe("sh", arguments, only);
}

static void by_fexecve(void)
{
    char *arguments[] = {"name", "child", "fexecve", NULL};
    fexecve(open(self, O_RDONLY | O_CLOEXEC), arguments, environ);
}

static void by_execveat(void)
{
    char *arguments[] = {"name", "child", "execveat", NULL};
    execveat(AT_FDCWD, self, arguments, environ, 0);
}

static char script[200];

static void write_script(const char *text)
{
    const char *folder = getenv("TMPDIR");
    snprintf(script, sizeof script, "%s/script-XXXXXX", folder ? folder : "/tmp");
    int file = mkstemp(script);
    write(file, text, strlen(text));
    fchmod(file, 0755);
    close(file);
}

static void by_script(void)
{
    execl(script, "name", "argument", NULL);
}

static void by_script_of_no_shell(void)
{
    execlp(script, "name", "argument", NULL);
}

static void missing(void)
{
    execlp("there-is-no-such-program", "name", NULL);
}

static void not_executable(void)
{
    chmod(script, 0644);
    execl(script, "name", NULL);
}

static void *execute(void *argument)
{
    by_execv();
    return argument;
}

static void from_a_thread(void)
{
    pthread_t threads[3];
    int never[2];
    pipe(never);
    pthread_create(&threads[0], NULL, execute, NULL);
    char byte;
    read(never[0], &byte, 1);
}

static void after_closefrom(void)
{
    closefrom(3);
    by_execv();
}

static void after_close_range(void)
{
    close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
    by_execv();
}

static void after_closing_all(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    for (int fd = 3; fd < (int)limit.rlim_cur && fd < 20000; fd++)
        close(fd);
    by_execv();
}

static void after_marking_all(void)
{
    for (int fd = 3; fd < 2000; fd++)
        fcntl(fd, F_SETFD, FD_CLOEXEC);
    by_execv();
}

static void after_closing_the_listed(void)
{
    DIR *folder = opendir("/proc/self/fd");
    struct dirent *entry;
    while ((entry = readdir(folder))) {
        int fd = atoi(entry->d_name);
        if (fd > 2 && fd != dirfd(folder))
            close(fd);
    }
    by_execv();
}

static void by_vfork(void)
{
    pid_t child = vfork();
    if (child == 0) {
        execl(self, "name", "child", "vfork", NULL);
        _exit(1);
    }
    int status;
    waitpid(child, &status, 0);
    _exit(WEXITSTATUS(status));
}

static void with_signals_set(void)
{
    signal(SIGUSR2, SIG_IGN);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    by_execv();
}

void executions(void)
{
    say_output("execl", by_execl);
    say_output("execv", by_execv);
    say_output("execve", by_execve);
    say_output("execle", by_execle);
    say_output("execlp", by_execlp);
    say_output("execvpe", by_execvpe);
    say_output("fexecve", by_fexecve);
    say_output("execveat", by_execveat);
    write_script("#! /bin/sh -e\necho script $1\n");
    say_output("script", by_script);
    say_output("not executable", not_executable);
    unlink(script);
    write_script("echo by the shell $1\n");
    say_output("no format", by_script);
    say_output("script without its shell", by_script_of_no_shell);
    unlink(script);
    say_output("missing", missing);
    say_output("from a thread", from_a_thread);
    say_output("closefrom", after_closefrom);
    say_output("close_range", after_close_range);
    say_output("closing all", after_closing_all);
    say_output("marking all", after_marking_all);
    say_output("closing the listed", after_closing_the_listed);
    say_output("vfork", by_vfork);
    say_output("signals", with_signals_set);
}
