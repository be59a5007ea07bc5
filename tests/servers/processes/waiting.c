/* Process groups, sessions, and waiting for children. */
#include "processes.h"
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

void groups(void)
{
    pid_t me = getpid();
    say("own group %d session %d\n", getpgrp() == getpgid(0), getsid(0) == getsid(me));
    int ready[2], go[2];
    pipe(ready);
    pipe(go);
    pid_t child = fork();
    if (child == 0) {
        char byte;
        read(go[0], &byte, 1);
        say("child leads %d\n", getpgrp() == getpid());
        say("leader's setsid %d\n", setsid() == -1 && errno == EPERM);
        pid_t grandchild = fork();
        if (grandchild == 0) {
            pid_t session = setsid();
            say("new session %d %d %d\n", session == getpid(), getpgrp() == session,
                getsid(0) == session);
            say("its leader stays %d\n", setpgid(0, 0) == -1 && errno == EPERM);
            write(ready[1], "x", 1);
            _exit(0);
        }
        int status;
        read(ready[0], &byte, 1);
        say("by own group %d\n", waitpid(0, &status, 0) == -1 && errno == ECHILD);
        say("by its group %d\n", waitpid(-grandchild, &status, 0) == grandchild);
        _exit(0);
    }
    say("setpgid %d", setpgid(child, child));
    say(" %d\n", getpgid(child) == child);
    say("not in the group %d\n", waitpid(0, NULL, WNOHANG) == -1 && errno == ECHILD);
    write(go[1], "x", 1);
    int status = -1;
    say("by group %d", waitpid(-child, &status, 0) == child);
    say(" status %d\n", status);
    say("gone %d\n", getpgid(child) == -1 && errno == ESRCH);
    say("terminal %d %d\n", tcgetpgrp(0) == -1 && errno == ENOTTY, tcsetpgrp(0, me) == -1);
    close(ready[0]);
    close(ready[1]);
    close(go[0]);
    close(go[1]);
}

static pid_t child_that_exits(int status)
{
    pid_t child = fork();
    if (child == 0)
        _exit(status);
    return child;
}

static void say_info(const char *what, int result, const siginfo_t *info, pid_t child)
{
    say("%s: %d signal %d code %d pid %d status %d\n", what, result, info->si_signo == SIGCHLD,
        info->si_code, info->si_pid == child, info->si_status);
}

void waits(void)
{
    siginfo_t info;
    int status = 0;
    say("nobody %d\n", wait(NULL) == -1 && errno == ECHILD);
    say("nobody by id %d\n", waitid(P_ALL, 0, &info, WEXITED) == -1 && errno == ECHILD);
    say("bad options %d %d\n", waitid(P_ALL, 0, &info, 0) == -1 && errno == EINVAL,
        waitpid(-1, NULL, 0x1000) == -1 && errno == EINVAL);

    int go[2];
    pipe(go);
    pid_t child = fork();
    if (child == 0) {
        char byte;
        read(go[0], &byte, 1);
        _exit(200);
    }
    say("not yet %d\n", waitpid(child, &status, WNOHANG));
    info.si_pid = 77;
    int result = waitid(P_PID, child, &info, WEXITED | WNOHANG);
    say("not yet by id %d %d\n", result, info.si_pid);
    write(go[1], "x", 1);
    result = waitid(P_PID, child, &info, WEXITED | WNOWAIT);
    say_info("looked at", result, &info, child);
    result = waitid(P_PGID, getpgrp(), &info, WEXITED | WNOHANG);
    say_info("reaped", result, &info, child);
    say("gone %d\n", waitpid(child, NULL, 0) == -1 && errno == ECHILD);

    child = fork();
    if (child == 0) {
        raise(SIGKILL);
        _exit(1);
    }
    result = waitid(P_ALL, 0, &info, WEXITED);
    say_info("killed", result, &info, child);

    /* All have ended before the first is reaped: the last of them closes the pipe. */
    pid_t first = child_that_exits(1), second = child_that_exits(2), third = child_that_exits(3);
    waitid(P_PID, first, NULL, WEXITED | WNOWAIT);
    waitid(P_PID, second, NULL, WEXITED | WNOWAIT);
    waitid(P_PID, third, NULL, WEXITED | WNOWAIT);
    struct rusage usage;
    int ordered = wait(&status) == first && wait3(&status, 0, &usage) == second &&
                  wait4(-1, &status, 0, &usage) == third;
    say("in the order of their making %d, last status %d\n", ordered, WEXITSTATUS(status));
    close(go[0]);
    close(go[1]);

    /* More than there are slots for processes. */
    signal(SIGCHLD, SIG_IGN);
    int made = 0;
    for (int round = 0; round < 300; round++)
        made += child_that_exits(0) > 0;
    say("made %d", made);
    say(" and nothing to wait for %d\n", wait(&status) == -1 && errno == ECHILD);
    struct sigaction action = {.sa_handler = SIG_DFL, .sa_flags = SA_NOCLDWAIT};
    sigaction(SIGCHLD, &action, NULL);
    child = child_that_exits(4);
    say("nor then %d\n", waitpid(child, &status, 0) == -1 && errno == ECHILD);
    signal(SIGCHLD, SIG_DFL);
}

void orphans(void)
{
    int ends[2];
    char got[16];
    for (int round = 0; round < 300; round++) {
        pipe(ends);
        pid_t child = fork();
        if (child == 0) {
            pid_t parent = getpid();
            if (fork() == 0) {
                while (getppid() == parent)
                    sched_yield();
                write(ends[1], "orphan", 6);
                _exit(0);
            }
            _exit(9);
        }
        close(ends[1]);
        waitpid(child, NULL, 0);
        ssize_t length = read(ends[0], got, sizeof got);
        if (length != 6) {
            say("round %d: %zd\n", round, length);
            return;
        }
        close(ends[0]);
    }
    say("orphans end, nobody waits %d\n", wait(NULL) == -1 && errno == ECHILD);
}
