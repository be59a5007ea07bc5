/* A server that tries what programs do with signals and timers, one round per connection, and answers
 * with what it saw. POSIX fixes every answer, so a native run gives the same lines. */
#include "server.h"
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t count, last, last_value, last_code, last_status;

static void on_signal(int signal)
{
    count++;
    last = signal;
}

static void on_info(int signal, siginfo_t *info, void *context)
{
    (void)context;
    count++;
    last = last * 100 + signal;
    last_value = last_value * 10 + info->si_value.sival_int;
    last_code = info->si_code;
    last_status = info->si_status;
}

static void handle(int signal, void (*handler)(int), int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    sigaction(signal, &action, NULL);
}

static void handle_info(int signal)
{
    struct sigaction action = {.sa_sigaction = on_info, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigaction(signal, &action, NULL);
}

static void reset(void)
{
    count = last = last_value = last_code = last_status = 0;
}

/* Waits for a handler to have run, wherever the signal comes. */
static void await_handler(int signal)
{
    sigset_t set, old;
    sigemptyset(&set);
    sigaddset(&set, signal);
    sigprocmask(SIG_BLOCK, &set, &old);
    while (count == 0)
        sigsuspend(&old);
    sigprocmask(SIG_SETMASK, &old, NULL);
}

static sigset_t set_of(int signal)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal);
    return set;
}

static void own_signals(void)
{
    reset();
    handle(SIGUSR1, on_signal, 0);
    raise(SIGUSR1);
    say("raise %d %d\n", count, last == SIGUSR1);
    kill(getpid(), SIGUSR1);
    say("kill %d\n", count);

    sigset_t set = set_of(SIGUSR1), old, pending;
    sigprocmask(SIG_BLOCK, &set, &old);
    kill(getpid(), SIGUSR1);
    kill(getpid(), SIGUSR1);
    sigpending(&pending);
    say("blocked %d pending %d\n", count, sigismember(&pending, SIGUSR1));
    sigprocmask(SIG_SETMASK, &old, NULL);
    say("unblocked %d\n", count);

    reset();
    handle_info(SIGRTMIN + 1);
    handle_info(SIGRTMIN + 2);
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 1);
    sigaddset(&set, SIGRTMIN + 2);
    sigprocmask(SIG_BLOCK, &set, &old);
    sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = 1});
    sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = 2});
    sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = 3});
    sigprocmask(SIG_SETMASK, &old, NULL);
    say("queued %d values %d code %d\n", count, last_value, last_code == SI_QUEUE);
    handle(SIGUSR1, SIG_IGN, 0);
    say("ignored %d\n", kill(getpid(), SIGUSR1));
}

static void *await(void *argument)
{
    sigset_t set = set_of(SIGUSR2);
    int got = 0;
    int result = sigwait(&set, &got);
    *(int *)argument = result * 1000 + got;
    return NULL;
}

static void waits(void)
{
    sigset_t set = set_of(SIGUSR2), old;
    pthread_sigmask(SIG_BLOCK, &set, &old);
    pthread_t thread;
    int got = 0;
    pthread_create(&thread, NULL, await, &got);
    kill(getpid(), SIGUSR2);
    pthread_join(thread, NULL);
    say("sigwait %d\n", got == SIGUSR2);
    struct timespec soon = {.tv_nsec = 2000000};
    int result = sigtimedwait(&set, NULL, &soon);
    say("sigtimedwait %d %d\n", result, errno == EAGAIN);
    kill(getpid(), SIGUSR2);
    siginfo_t info;
    result = sigwaitinfo(&set, &info);
    say("sigwaitinfo %d %d\n", result == SIGUSR2, info.si_pid == getpid());
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void timers(void)
{
    reset();
    handle(SIGALRM, on_signal, 0);
    /* It comes again, should it come before the pause. */
    struct itimerval once = {{.tv_usec = 20000}, {.tv_usec = 20000}};
    setitimer(ITIMER_REAL, &once, NULL);
    int result = pause(), interrupted = errno == EINTR;
    setitimer(ITIMER_REAL, &(struct itimerval){{0, 0}, {0, 0}}, NULL);
    say("pause %d %d alarms %d\n", result, interrupted, count > 0);

    sigset_t set = set_of(SIGALRM), old;
    sigprocmask(SIG_BLOCK, &set, &old);
    struct itimerval again = {{.tv_usec = 2000}, {.tv_usec = 2000}};
    setitimer(ITIMER_REAL, &again, NULL);
    while (count < 4)
        sigsuspend(&old);
    setitimer(ITIMER_REAL, &(struct itimerval){{0, 0}, {0, 0}}, &once);
    say("periodic %d interval %ld\n", count >= 4, (long)once.it_interval.tv_usec);
    sigprocmask(SIG_SETMASK, &old, NULL);

    reset();
    alarm(1);
    struct timespec long_time = {.tv_sec = 30}, rest = {0};
    result = nanosleep(&long_time, &rest);
    say("nanosleep %d %d rest %d\n", result, errno == EINTR, rest.tv_sec == 28 || rest.tv_sec == 29);

    reset();
    handle_info(SIGRTMIN + 1);
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL,
                             .sigev_signo = SIGRTMIN + 1,
                             .sigev_value.sival_int = 7};
    result = timer_create(CLOCK_MONOTONIC, &event, &timer);
    struct itimerspec spec = {.it_value.tv_nsec = 2000000};
    timer_settime(timer, 0, &spec, NULL);
    await_handler(SIGRTMIN + 1);
    say("timer_create %d value %d code %d\n", result, last_value, last_code == SI_TIMER);
    say("timer_delete %d\n", timer_delete(timer));

    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    uint64_t expirations = 0;
    result = read(fd, &expirations, 8);
    say("timerfd %d %d\n", result, errno == EAGAIN);
    spec.it_interval.tv_nsec = 2000000;
    timerfd_settime(fd, 0, &spec, NULL);
    struct pollfd wanted = {.fd = fd, .events = POLLIN};
    int ready = poll(&wanted, 1, 5000);
    result = read(fd, &expirations, 8);
    say("timerfd ready %d read %d some %d\n", ready, result, expirations >= 1);
    close(fd);
}

static void descriptors(void)
{
    int fd = eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK);
    uint64_t value = 0;
    int a = read(fd, &value, 8), b = read(fd, &value, 8), c = read(fd, &value, 8);
    say("semaphore %d %d %d %d\n", a, b, c, errno == EAGAIN);
    value = 1;
    a = write(fd, &value, 8);
    struct pollfd wanted = {.fd = fd, .events = POLLIN | POLLOUT};
    b = poll(&wanted, 1, 0);
    say("eventfd %d %d %d\n", a, b, wanted.revents == (POLLIN | POLLOUT));
    close(fd);

    sigset_t set = set_of(SIGURG), old;
    sigprocmask(SIG_BLOCK, &set, &old);
    fd = signalfd(-1, &set, SFD_NONBLOCK);
    int epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    a = epoll_wait(epoll, &event, 1, 0);
    kill(getpid(), SIGURG);
    b = epoll_wait(epoll, &event, 1, -1);
    struct signalfd_siginfo info;
    c = read(fd, &info, sizeof info);
    int d = epoll_wait(epoll, &event, 1, 0);
    say("signalfd %d %d %d signal %d again %d\n", a, b, c, info.ssi_signo == SIGURG, d);
    close(epoll);
    close(fd);
    sigprocmask(SIG_SETMASK, &old, NULL);
}

static sem_t semaphore;

static void *sleep_on_semaphore(void *argument)
{
    volatile int *seen = argument;
    seen[0] = sem_wait(&semaphore);
    seen[1] = errno;
    seen[2] = 1;
    return NULL;
}

static void interrupted_calls(void)
{
    reset();
    handle(SIGUSR1, on_signal, 0);
    sem_init(&semaphore, 0, 0);
    pthread_t thread;
    volatile int seen[3] = {9, 9, 0};
    pthread_create(&thread, NULL, sleep_on_semaphore, (void *)seen);
    /* Again, should it come before the thread sleeps. */
    while (!seen[2]) {
        pthread_kill(thread, SIGUSR1);
        usleep(5000);
    }
    pthread_join(thread, NULL);
    say("sem_wait %d %d handled %d\n", seen[0], seen[1] == EINTR, count > 0);

    int ends[2];
    if (pipe(ends) != 0)
        exit(1);
    for (int restart = 0; restart < 2; restart++) {
        handle(SIGUSR1, on_signal, restart ? SA_RESTART : 0);
        pid_t child = fork();
        if (child == 0) {
            usleep(100000);
            kill(getppid(), SIGUSR1);
            usleep(100000);
            if (write(ends[1], "x", 1) != 1)
                _exit(1);
            _exit(0);
        }
        char byte;
        int result = read(ends[0], &byte, 1);
        say("read restart %d: %d %d\n", restart, result, result < 0 && errno == EINTR);
        if (result < 0)
            result = read(ends[0], &byte, 1);
        waitpid(child, NULL, 0);
    }
    sigset_t set = set_of(SIGUSR1), old;
    sigprocmask(SIG_BLOCK, &set, &old);
    kill(getpid(), SIGUSR1);
    struct timespec second = {.tv_sec = 1};
    int result = ppoll(NULL, 0, &second, &old);
    say("ppoll %d %d\n", result, errno == EINTR);
    sigprocmask(SIG_SETMASK, &old, NULL);

    reset();
    handle(SIGPIPE, on_signal, 0);
    close(ends[0]);
    result = write(ends[1], "x", 1);
    say("broken pipe %d %d handled %d\n", result, errno == EPIPE, count);
    close(ends[1]);
    handle(SIGPIPE, SIG_DFL, 0);
}

static void exit_seven(int signal)
{
    (void)signal;
    _exit(7);
}

static void children(void)
{
    reset();
    handle_info(SIGCHLD);
    int status = 0;
    pid_t child = fork();
    if (child == 0)
        _exit(5);
    await_handler(SIGCHLD);
    pid_t got = waitpid(-1, &status, 0);
    say("child %d status %d told %d code %d\n", got == child, WEXITSTATUS(status), last_status,
        last_code == CLD_EXITED);
    for (int kind = 0; kind < 3; kind++) {
        child = fork();
        if (child == 0) {
            if (kind == 1)
                handle(SIGTERM, exit_seven, 0);
            kill(getppid(), SIGUSR2);
            for (;;)
                pause();
        }
        sigset_t set = set_of(SIGUSR2);
        int signal;
        sigwait(&set, &signal);
        kill(child, kind == 2 ? SIGKILL : SIGTERM);
        got = waitpid(child, &status, 0);
        say("killed %d exited %d %d signal %d\n", got == child, WIFEXITED(status),
            WIFEXITED(status) ? WEXITSTATUS(status) : 0, WIFSIGNALED(status) ? WTERMSIG(status) : 0);
    }
    for (int kind = 0; kind < 3; kind++) {
        child = fork();
        if (child == 0) {
            volatile int *nowhere = NULL;
            if (kind == 0)
                *nowhere = 1;
            if (kind == 1)
                abort();
            handle(SIGSEGV, exit_seven, 0);
            *nowhere = 1;
        }
        got = waitpid(child, &status, 0);
        say("crashed %d signal %d exit %d\n", got == child, WIFSIGNALED(status) ? WTERMSIG(status) : 0,
            WIFEXITED(status) ? WEXITSTATUS(status) : 0);
    }
    handle(SIGCHLD, SIG_DFL, 0);
    int there = kill(child, 0);
    say("nobody %d %d\n", there, errno == ESRCH);
}

static sigjmp_buf jump;

static void jump_out(int signal)
{
    siglongjmp(jump, signal);
}

static void jumps(void)
{
    handle(SIGUSR1, jump_out, 0);
    int value = sigsetjmp(jump, 1);
    if (value == 0)
        raise(SIGUSR1);
    sigset_t now;
    sigprocmask(SIG_BLOCK, NULL, &now);
    say("jumped %d still blocked %d\n", value == SIGUSR1, sigismember(&now, SIGUSR1));
}

static void on_hang_up(int signal)
{
    (void)signal;
    count = 1000;
}

static void operator(void)
{
    reset();
    handle(SIGHUP, on_hang_up, 0);
    say("waiting\n");
    while (count != 1000)
        pause();
    say("hung up\n");
}

static void answer(char request)
{
    if (request == 'h') {
        operator();
        return;
    }
    own_signals();
    waits();
    timers();
    descriptors();
    interrupted_calls();
    children();
    jumps();
}

int main(int argc, char **argv)
{
    sigset_t set = set_of(SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, NULL);
    serve(listen_on(argv[argc - 1], 0), 0, answer);
}
