/* Locks on files: flock, record locks of processes and of open files. */
#include "ipc.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/types.h>
#include <unistd.h>

static void flock_and_count(int unused)
{
    (void)unused;
    int file = opened(0);
    for (int round = 0; round < ROUNDS; round++) {
        flock(file, LOCK_EX);
        count_in(file);
        flock(file, LOCK_UN);
    }
}

/* What another descriptor of the file can get at once. */
static int refused(int operation)
{
    int file = opened(0);
    int result = flock(file, operation | LOCK_NB) == -1 ? errno == EWOULDBLOCK : 0;
    close(file);
    return result;
}

/* A child that takes the lock, says so, and lets go of it in some way once it is told to. */
static pid_t holder(int how, int tell[2])
{
    int said[2];
    char byte;
    pipe(said);
    pipe(tell);
    pid_t child = fork();
    if (child == 0) {
        close(tell[1]);
        FILE *stream = fopen(path, "r+e");
        int file = fileno(stream);
        flock(file, LOCK_EX);
        write(said[1], "x", 1);
        read(tell[0], &byte, 1);
        if (how == 'f')
            fclose(stream);
        if (how == 'e') {
            dup2(tell[0], 0);
            dup2(tell[0], 1);
            execl(self, self, "sleeper", NULL);
        }
        if (how == 'd')
            dup2(tell[0], file);
        if (how != 'x')
            read(tell[0], &byte, 1);
        _exit(0);
    }
    close(tell[0]);
    read(said[0], &byte, 1);
    close(said[0]);
    close(said[1]);
    return child;
}

void flocks(void)
{
    int file = opened(O_TRUNC);
    say("children %d", all_do(flock_and_count, 0));
    say(" counted %u\n", counted(file));
    flock(file, LOCK_SH);
    say("shared: refused shared %d exclusive %d", refused(LOCK_SH), refused(LOCK_EX));
    flock(file, LOCK_EX);
    int twin = dup(file);
    close(file);
    say(", exclusive: refused %d, nonsense %d\n", refused(LOCK_SH),
        flock(twin, 77) == -1 && errno == EINVAL);
    close(twin);
    say("closed: refused %d\n", refused(LOCK_EX));
    for (const char *how = "xfed"; *how; how++) {
        int tell[2];
        pid_t child = holder(*how, tell);
        int before = refused(LOCK_SH);
        write(tell[1], "x", 1);
        file = opened(0);
        int got = flock(file, LOCK_EX);
        close(tell[1]);
        say("%c: refused %d then got %d", *how, before, got);
        say(", ended %d\n", reap(child));
        close(file);
    }
    int tell[2];
    pid_t child = holder('x', tell);
    file = opened(0);
    interrupt_soon();
    int result = flock(file, LOCK_EX);
    say("interrupted %d\n", result == -1 && errno == EINTR);
    interrupt_no_more();
    close(tell[1]);
    say("and then %d", flock(file, LOCK_EX));
    say(" %d\n", reap(child));
    close(file);
}

static int record(int file, int command, int kind, off_t start, off_t length)
{
    struct flock lock = {.l_type = kind, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
    return fcntl(file, command, &lock);
}

static void record_and_count(int command)
{
    int file = opened(0);
    for (int round = 0; round < ROUNDS; round++) {
        record(file, command, F_WRLCK, 0, 4);
        count_in(file);
        record(file, F_SETLK, F_UNLCK, 0, 4);
    }
}

static void own_records_and_count(int unused)
{
    (void)unused;
    int file = opened(0);
    for (int round = 0; round < ROUNDS; round++) {
        record(file, F_OFD_SETLKW, F_WRLCK, 0, 4);
        count_in(file);
        record(file, F_OFD_SETLK, F_UNLCK, 0, 4);
    }
}

static void lockf_and_count(int unused)
{
    (void)unused;
    int file = opened(0);
    for (int round = 0; round < ROUNDS; round++) {
        lockf(file, F_LOCK, 4);
        count_in(file);
        lockf(file, F_ULOCK, 4);
    }
}

/* Parent and child each have a byte and want the other's: one of them is told. */
static void circle(void)
{
    int file = opened(0), ready[2], go[2];
    char byte;
    pipe(ready);
    pipe(go);
    record(file, F_SETLK, F_WRLCK, 10, 1);
    pid_t child = fork();
    if (child == 0) {
        file = opened(0);
        record(file, F_SETLK, F_WRLCK, 11, 1);
        write(ready[1], "x", 1);
        int told = record(file, F_SETLKW, F_WRLCK, 10, 1) == -1 && errno == EDEADLK;
        record(file, F_SETLK, F_UNLCK, 0, 0);
        _exit(told);
    }
    read(ready[0], &byte, 1);
    int told = record(file, F_SETLKW, F_WRLCK, 11, 1) == -1 && errno == EDEADLK;
    record(file, F_SETLK, F_UNLCK, 0, 0);
    say("circle: told %d\n", told + reap(child));
    close(ready[0]), close(ready[1]), close(go[0]), close(go[1]), close(file);
}

static void *take_own(void *argument)
{
    int *file = argument;
    return (void *)(intptr_t)record(*file, F_OFD_SETLKW, F_WRLCK, 0, 0);
}

void records(void)
{
    int file = opened(O_TRUNC);
    int well = all_do(record_and_count, F_SETLKW);
    well += all_do(own_records_and_count, 0) + all_do(lockf_and_count, 0);
    say("children %d counted %u\n", well, counted(file));
    int ready[2];
    char byte;
    pipe(ready);
    pid_t child = fork();
    if (child == 0) {
        int own = opened(0);
        record(own, F_SETLK, F_WRLCK, 100, 10);
        record(own, F_SETLK, F_RDLCK, 105, 5);
        write(ready[1], "x", 1);
        pause();
    }
    read(ready[0], &byte, 1);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 102};
    fcntl(file, F_GETLK, &lock);
    say("held by the child %d from %d for %d kind %d\n", lock.l_pid == child, (int)lock.l_start,
        (int)lock.l_len, lock.l_type == F_WRLCK);
    say("read %d write %d", record(file, F_SETLK, F_RDLCK, 106, 1),
        record(file, F_SETLK, F_WRLCK, 106, 1) == -1 && (errno == EAGAIN || errno == EACCES));
    lseek(file, 100, SEEK_SET);
    say(" test %d", lockf(file, F_TEST, 1) == -1 && errno == EACCES);
    say(" try %d\n", lockf(file, F_TLOCK, 1) == -1 && (errno == EAGAIN || errno == EACCES));
    interrupt_soon();
    int result = record(file, F_SETLKW, F_WRLCK, 100, 1);
    say("interrupted %d\n", result == -1 && errno == EINTR);
    interrupt_no_more();
    kill(child, SIGKILL);
    say("got when it is dead %d", record(file, F_SETLKW, F_WRLCK, 100, 1));
    say(" %d\n", reap(child));
    /* Closing any descriptor of the file gives up all of a process's locks. */
    close(opened(0));
    child = fork();
    if (child == 0)
        _exit(record(opened(0), F_SETLK, F_WRLCK, 0, 0) == 0 ? 0 : 1);
    say("given up by another close %d\n", reap(child));
    circle();
    int other = opened(0);
    record(file, F_OFD_SETLK, F_WRLCK, 0, 0);
    say("own: refused %d", record(other, F_OFD_SETLK, F_RDLCK, 0, 0) == -1 && errno == EAGAIN);
    lock = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET};
    fcntl(other, F_OFD_GETLK, &lock);
    pthread_t thread;
    void *got;
    pthread_create(&thread, NULL, take_own, &other);
    sched_yield();
    record(file, F_OFD_SETLK, F_UNLCK, 0, 0);
    pthread_join(thread, &got);
    say(" held by %d, then %d\n", lock.l_pid, (int)(intptr_t)got);
    close(file), close(other), close(ready[0]), close(ready[1]);
}
