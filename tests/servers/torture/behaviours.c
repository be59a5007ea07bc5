/* What single calls return, where the standard and glibc's manual leave no choice: printed, so that
 * a native run and a wrapped one can be compared line by line. */
#include "torture.h"
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <semaphore.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A call that returns its error. */
#define SHOW(out, call) show((out), #call, (call))
/* A call that returns -1 and sets errno. */
#define SHOW_ERRNO(out, call) show((out), #call, (call) < 0 ? errno : 0)
/* Any number. */
#define SHOW_VALUE(out, value) fprintf((out), "%s = %ld\n", #value, (long)(value))

static void show(FILE *out, const char *what, int result)
{
    const char *name = strerrorname_np(result);
    fprintf(out, "%s: %s\n", what, result == 0 ? "ok" : name ? name : "?");
}

/* Has another thread do something while this one waits for it. */
static void elsewhere(void *(*what)(void *), void *argument)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, what, argument) == 0)
        pthread_join(thread, NULL);
}

static const struct timespec BAD = {0, 1000000000}, NEGATIVE = {0, -1}, PAST = {1, 0};

struct scene {
    FILE *out;
    pthread_mutex_t mutex;
    pthread_rwlock_t lock;
    pthread_t thread;
    sem_t semaphore;
};

/* ---- mutexes ---- */

static void *try_others_mutex(void *argument)
{
    struct scene *scene = argument;
    struct timespec soon = after(CLOCK_REALTIME, 1000000);
    SHOW(scene->out, pthread_mutex_trylock(&scene->mutex));
    SHOW(scene->out, pthread_mutex_timedlock(&scene->mutex, &soon));
    SHOW(scene->out, pthread_mutex_timedlock(&scene->mutex, &PAST));
    SHOW(scene->out, pthread_mutex_timedlock(&scene->mutex, &BAD));
    SHOW(scene->out, pthread_mutex_timedlock(&scene->mutex, &NEGATIVE));
    SHOW(scene->out, pthread_mutex_clocklock(&scene->mutex, CLOCK_MONOTONIC, &PAST));
    SHOW(scene->out, pthread_mutex_clocklock(&scene->mutex, CLOCK_BOOTTIME, &PAST));
    return NULL;
}

static void *unlock_others_mutex(void *argument)
{
    struct scene *scene = argument;
    SHOW(scene->out, pthread_mutex_unlock(&scene->mutex));
    return NULL;
}

static void mutex_of_kind(FILE *out, int kind, int robust)
{
    struct scene scene = {.out = out};
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    SHOW(out, pthread_mutexattr_settype(&attributes, kind));
    SHOW(out, pthread_mutexattr_setrobust(&attributes, robust));
    SHOW(out, pthread_mutex_init(&scene.mutex, &attributes));
    SHOW(out, pthread_mutex_lock(&scene.mutex));
    if (robust != PTHREAD_MUTEX_ROBUST)
        SHOW(out, pthread_mutex_destroy(&scene.mutex));
    elsewhere(try_others_mutex, &scene);
    bool recursive = kind == PTHREAD_MUTEX_RECURSIVE;
    bool checks = kind == PTHREAD_MUTEX_ERRORCHECK;
    int again = pthread_mutex_trylock(&scene.mutex);
    show(out, "try again", again);
    if (again == 0)
        SHOW(out, pthread_mutex_unlock(&scene.mutex));
    struct timespec soon = after(CLOCK_REALTIME, 1000000);
    int timed = pthread_mutex_timedlock(&scene.mutex, &soon);
    show(out, "again with a limit", timed);
    if (timed == 0)
        SHOW(out, pthread_mutex_unlock(&scene.mutex));
    if (recursive || checks)
        SHOW(out, pthread_mutex_lock(&scene.mutex));
    if (recursive || checks || robust == PTHREAD_MUTEX_ROBUST)
        elsewhere(unlock_others_mutex, &scene);
    if (recursive)
        SHOW(out, pthread_mutex_unlock(&scene.mutex));
    SHOW(out, pthread_mutex_consistent(&scene.mutex));
    SHOW(out, pthread_mutex_unlock(&scene.mutex));
    if (recursive || checks || robust == PTHREAD_MUTEX_ROBUST)
        SHOW(out, pthread_mutex_unlock(&scene.mutex));
    SHOW(out, pthread_mutex_destroy(&scene.mutex));
}

static void mutexes(FILE *out)
{
    static const int kinds[] = {PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_RECURSIVE,
                                PTHREAD_MUTEX_ERRORCHECK, PTHREAD_MUTEX_ADAPTIVE_NP};
    for (unsigned at = 0; at < 4; at++)
        mutex_of_kind(out, kinds[at], PTHREAD_MUTEX_STALLED);
}

static void *die_with_mutex(void *argument)
{
    struct scene *scene = argument;
    SHOW(scene->out, pthread_mutex_lock(&scene->mutex));
    return NULL;
}

static void robust_mutexes(FILE *out)
{
    mutex_of_kind(out, PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_ROBUST);
    mutex_of_kind(out, PTHREAD_MUTEX_RECURSIVE, PTHREAD_MUTEX_ROBUST);
    mutex_of_kind(out, PTHREAD_MUTEX_ERRORCHECK, PTHREAD_MUTEX_ROBUST);
    struct scene scene = {.out = out};
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&scene.mutex, &attributes);
    elsewhere(die_with_mutex, &scene);
    SHOW(out, pthread_mutex_trylock(&scene.mutex));
    SHOW(out, pthread_mutex_consistent(&scene.mutex));
    SHOW(out, pthread_mutex_consistent(&scene.mutex));
    SHOW(out, pthread_mutex_unlock(&scene.mutex));
    elsewhere(die_with_mutex, &scene);
    struct timespec soon = after(CLOCK_REALTIME, 1000000);
    SHOW(out, pthread_mutex_timedlock(&scene.mutex, &soon));
    SHOW(out, pthread_mutex_unlock(&scene.mutex));
    SHOW(out, pthread_mutex_lock(&scene.mutex));
    SHOW(out, pthread_mutex_trylock(&scene.mutex));
    SHOW(out, pthread_mutex_destroy(&scene.mutex));
}

static void attributes(FILE *out)
{
    pthread_mutexattr_t mutex;
    pthread_mutexattr_init(&mutex);
    int value = -1;
    SHOW(out, pthread_mutexattr_settype(&mutex, 99));
    SHOW(out, pthread_mutexattr_setpshared(&mutex, 9));
    SHOW(out, pthread_mutexattr_setprotocol(&mutex, PTHREAD_PRIO_INHERIT));
    SHOW(out, pthread_mutexattr_getprotocol(&mutex, &value));
    SHOW_VALUE(out, value);
    SHOW(out, pthread_mutexattr_setrobust(&mutex, PTHREAD_MUTEX_ROBUST));
    SHOW(out, pthread_mutexattr_getrobust(&mutex, &value));
    SHOW_VALUE(out, value);
    pthread_condattr_t condition;
    pthread_condattr_init(&condition);
    SHOW(out, pthread_condattr_setclock(&condition, CLOCK_PROCESS_CPUTIME_ID));
    SHOW(out, pthread_condattr_setclock(&condition, CLOCK_MONOTONIC));
    pthread_attr_t thread;
    pthread_attr_init(&thread);
    SHOW(out, pthread_attr_setstacksize(&thread, 1));
    SHOW(out, pthread_attr_setdetachstate(&thread, 7));
    SHOW(out, pthread_attr_setschedpolicy(&thread, SCHED_OTHER));
    SHOW(out, pthread_attr_setinheritsched(&thread, PTHREAD_EXPLICIT_SCHED));
}

/* ---- read-write locks ---- */

static void *try_others_lock(void *argument)
{
    struct scene *scene = argument;
    struct timespec soon = after(CLOCK_REALTIME, 1000000);
    int read = pthread_rwlock_tryrdlock(&scene->lock);
    show(scene->out, "try to read", read);
    if (read == 0)
        pthread_rwlock_unlock(&scene->lock);
    SHOW(scene->out, pthread_rwlock_trywrlock(&scene->lock));
    SHOW(scene->out, pthread_rwlock_timedwrlock(&scene->lock, &soon));
    SHOW(scene->out, pthread_rwlock_timedwrlock(&scene->lock, &PAST));
    SHOW(scene->out, pthread_rwlock_timedwrlock(&scene->lock, &BAD));
    SHOW(scene->out, pthread_rwlock_timedrdlock(&scene->lock, &BAD));
    SHOW(scene->out, pthread_rwlock_clockwrlock(&scene->lock, CLOCK_MONOTONIC, &PAST));
    SHOW(scene->out, pthread_rwlock_clockwrlock(&scene->lock, CLOCK_BOOTTIME, &PAST));
    SHOW(scene->out, pthread_rwlock_clockrdlock(&scene->lock, CLOCK_BOOTTIME, &PAST));
    return NULL;
}

static void rwlocks(FILE *out)
{
    struct scene scene = {.out = out};
    SHOW(out, pthread_rwlock_init(&scene.lock, NULL));
    SHOW(out, pthread_rwlock_rdlock(&scene.lock));
    SHOW(out, pthread_rwlock_rdlock(&scene.lock));
    SHOW(out, pthread_rwlock_trywrlock(&scene.lock));
    elsewhere(try_others_lock, &scene);
    SHOW(out, pthread_rwlock_unlock(&scene.lock));
    SHOW(out, pthread_rwlock_unlock(&scene.lock));
    SHOW(out, pthread_rwlock_wrlock(&scene.lock));
    SHOW(out, pthread_rwlock_wrlock(&scene.lock));
    SHOW(out, pthread_rwlock_rdlock(&scene.lock));
    SHOW(out, pthread_rwlock_tryrdlock(&scene.lock));
    SHOW(out, pthread_rwlock_trywrlock(&scene.lock));
    struct timespec soon = after(CLOCK_REALTIME, 1000000);
    SHOW(out, pthread_rwlock_timedrdlock(&scene.lock, &soon));
    elsewhere(try_others_lock, &scene);
    SHOW(out, pthread_rwlock_unlock(&scene.lock));
    SHOW(out, pthread_rwlock_destroy(&scene.lock));
}

/* ---- condition variables ---- */

static void conditions(FILE *out)
{
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER, checking;
    pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK);
    pthread_mutex_init(&checking, &attributes);
    SHOW(out, pthread_cond_signal(&condition));
    SHOW(out, pthread_cond_broadcast(&condition));
    pthread_mutex_lock(&mutex);
    SHOW(out, pthread_cond_timedwait(&condition, &mutex, &PAST));
    SHOW(out, pthread_cond_timedwait(&condition, &mutex, &BAD));
    SHOW(out, pthread_cond_timedwait(&condition, &mutex, &NEGATIVE));
    SHOW(out, pthread_cond_clockwait(&condition, &mutex, CLOCK_MONOTONIC, &PAST));
    SHOW(out, pthread_cond_clockwait(&condition, &mutex, CLOCK_BOOTTIME, &PAST));
    SHOW(out, pthread_mutex_unlock(&mutex));
    SHOW(out, pthread_cond_timedwait(&condition, &checking, &PAST));
    SHOW(out, pthread_cond_wait(&condition, &checking));
    SHOW(out, pthread_cond_destroy(&condition));
}

/* ---- semaphores ---- */

static void semaphore_calls(FILE *out)
{
    sem_t semaphore;
    int value = -1;
    SHOW_ERRNO(out, sem_init(&semaphore, 0, (unsigned)SEM_VALUE_MAX + 1));
    SHOW_ERRNO(out, sem_init(&semaphore, 0, 1));
    SHOW_ERRNO(out, sem_timedwait(&semaphore, &BAD));
    SHOW_ERRNO(out, sem_post(&semaphore));
    SHOW_ERRNO(out, sem_trywait(&semaphore));
    SHOW_ERRNO(out, sem_trywait(&semaphore));
    SHOW_ERRNO(out, sem_timedwait(&semaphore, &PAST));
    SHOW_ERRNO(out, sem_timedwait(&semaphore, &BAD));
    SHOW_ERRNO(out, sem_timedwait(&semaphore, &NEGATIVE));
    SHOW_ERRNO(out, sem_clockwait(&semaphore, CLOCK_MONOTONIC, &PAST));
    SHOW_ERRNO(out, sem_clockwait(&semaphore, CLOCK_BOOTTIME, &PAST));
    SHOW_ERRNO(out, sem_getvalue(&semaphore, &value));
    SHOW_VALUE(out, value);
    SHOW_ERRNO(out, sem_destroy(&semaphore));
    SHOW_ERRNO(out, sem_init(&semaphore, 0, SEM_VALUE_MAX));
    SHOW_ERRNO(out, sem_post(&semaphore));
    SHOW_ERRNO(out, sem_getvalue(&semaphore, &value));
    SHOW_VALUE(out, value);
}

/* ---- barriers, spin locks ---- */

static void barrier_calls(FILE *out)
{
    pthread_barrier_t barrier;
    SHOW(out, pthread_barrier_init(&barrier, NULL, 0));
    SHOW(out, pthread_barrier_init(&barrier, NULL, (unsigned)INT_MAX + 1));
    SHOW(out, pthread_barrier_init(&barrier, NULL, 1));
    SHOW_VALUE(out, pthread_barrier_wait(&barrier));
    SHOW_VALUE(out, pthread_barrier_wait(&barrier));
    SHOW(out, pthread_barrier_destroy(&barrier));
    pthread_spinlock_t spin;
    SHOW(out, pthread_spin_init(&spin, PTHREAD_PROCESS_PRIVATE));
    SHOW(out, pthread_spin_lock(&spin));
    SHOW(out, pthread_spin_trylock(&spin));
    SHOW(out, pthread_spin_unlock(&spin));
    SHOW(out, pthread_spin_trylock(&spin));
    SHOW(out, pthread_spin_unlock(&spin));
    SHOW(out, pthread_spin_destroy(&spin));
}

/* ---- threads ---- */

static void *wait_on_semaphore(void *argument)
{
    struct scene *scene = argument;
    sem_wait(&scene->semaphore);
    return scene;
}

static void *join_itself(void *argument)
{
    struct scene *scene = argument;
    SHOW(scene->out, pthread_join(pthread_self(), NULL));
    return NULL;
}

static void thread_calls(FILE *out)
{
    /* The detached thread may be the last to look at it. */
    static struct scene scene;
    void *result = NULL;
    scene.out = out;
    sem_init(&scene.semaphore, 0, 0);
    elsewhere(join_itself, &scene);
    SHOW(out, pthread_create(&scene.thread, NULL, wait_on_semaphore, &scene));
    SHOW(out, pthread_tryjoin_np(scene.thread, &result));
    struct timespec soon = after(CLOCK_REALTIME, 1000000);
    SHOW(out, pthread_timedjoin_np(scene.thread, &result, &soon));
    SHOW(out, pthread_timedjoin_np(scene.thread, &result, &PAST));
    SHOW(out, pthread_clockjoin_np(scene.thread, &result, CLOCK_MONOTONIC, &PAST));
    SHOW_VALUE(out, pthread_equal(scene.thread, pthread_self()));
    sem_post(&scene.semaphore);
    SHOW(out, pthread_join(scene.thread, &result));
    SHOW_VALUE(out, result == &scene);
    SHOW(out, pthread_create(&scene.thread, NULL, wait_on_semaphore, &scene));
    SHOW(out, pthread_detach(scene.thread));
    SHOW(out, pthread_detach(scene.thread));
    SHOW(out, pthread_join(scene.thread, &result));
    SHOW(out, pthread_tryjoin_np(scene.thread, &result));
    sem_post(&scene.semaphore);
    char name[16];
    SHOW(out, pthread_setname_np(pthread_self(), "a name that is much too long"));
    SHOW(out, pthread_setname_np(pthread_self(), "tortured"));
    SHOW(out, pthread_getname_np(pthread_self(), name, sizeof name));
    fprintf(out, "%s\n", name);
    SHOW_VALUE(out, sched_yield());
}

/* ---- cancellation ---- */

static void say_so(void *argument)
{
    fprintf(argument, "cleaned up\n");
}

static void *be_cancelled(void *argument)
{
    FILE *out = argument;
    int old = -1;
    SHOW(out, pthread_setcancelstate(7, &old));
    SHOW(out, pthread_setcanceltype(7, &old));
    SHOW(out, pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old));
    SHOW_VALUE(out, old);
    SHOW(out, pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &old));
    SHOW_VALUE(out, old);
    SHOW(out, pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, NULL));
    pthread_cleanup_push(say_so, out);
    SHOW(out, pthread_cancel(pthread_self()));
    pthread_testcancel();
    fprintf(out, "not cancelled while that is disabled\n");
    SHOW(out, pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL));
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    SHOW(out, pthread_mutex_lock(&mutex));
    fprintf(out, "not cancelled in a call that is no cancellation point\n");
    pthread_testcancel();
    fprintf(out, "still there\n");
    pthread_cleanup_pop(0);
    return NULL;
}

static void cancellation(FILE *out)
{
    pthread_t thread;
    void *result = NULL;
    if (pthread_create(&thread, NULL, be_cancelled, out))
        return;
    SHOW(out, pthread_join(thread, &result));
    SHOW_VALUE(out, result == PTHREAD_CANCELED);
}

/* ---- policies and priorities ---- */

static void priorities(FILE *out)
{
    struct sched_param param = {.sched_priority = 0}, high = {.sched_priority = 5};
    int policy = -1;
    SHOW(out, pthread_getschedparam(pthread_self(), &policy, &param));
    SHOW_VALUE(out, policy);
    SHOW_VALUE(out, param.sched_priority);
    SHOW(out, pthread_setschedparam(pthread_self(), SCHED_OTHER, &high));
    SHOW(out, pthread_setschedparam(pthread_self(), 77, &param));
    SHOW(out, pthread_setschedparam(pthread_self(), SCHED_OTHER, &param));
    SHOW(out, pthread_setschedprio(pthread_self(), 5));
    SHOW(out, pthread_setschedprio(pthread_self(), 0));
    SHOW_ERRNO(out, sched_setscheduler(0, SCHED_OTHER, &high));
    SHOW_ERRNO(out, sched_setparam(0, &param));
    SHOW_VALUE(out, sched_getscheduler(0));
    SHOW_ERRNO(out, sched_getparam(0, &param));
    SHOW_VALUE(out, sched_get_priority_max(SCHED_FIFO));
    SHOW(out, pthread_setconcurrency(3));
    SHOW_VALUE(out, pthread_getconcurrency());
    clockid_t clock = 0;
    struct timespec time;
    SHOW(out, pthread_getcpuclockid(pthread_self(), &clock));
    SHOW_VALUE(out, clock < 0);
    SHOW_ERRNO(out, clock_gettime(clock, &time));
    SHOW(out, clock_getcpuclockid(0, &clock));
    SHOW_VALUE(out, clock < 0);
}

/* ---- futexes ---- */

static int futex(unsigned *word, int operation, unsigned value, uintptr_t timeout, unsigned *other,
                 unsigned value3)
{
    return (int)syscall(SYS_futex, word, operation, value, timeout, other, value3);
}

static void futex_calls(FILE *out)
{
    unsigned word = 5, other = 9;
    uintptr_t past = (uintptr_t)&PAST, bad = (uintptr_t)&BAD;
    struct timespec short_time = {0, 1000};
    SHOW_ERRNO(out, futex(&word, FUTEX_WAIT_PRIVATE, 4, 0, NULL, 0));
    SHOW_ERRNO(out, futex(&word, FUTEX_WAIT, 4, 0, NULL, 0));
    SHOW_ERRNO(out, futex(&word, FUTEX_WAIT_PRIVATE, 5, (uintptr_t)&short_time, NULL, 0));
    SHOW_ERRNO(out, futex(&word, FUTEX_WAIT_PRIVATE, 5, bad, NULL, 0));
    SHOW_ERRNO(out, futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 5, past, NULL, 1));
    SHOW_ERRNO(out, futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 5, past, NULL, 0));
    SHOW_ERRNO(out, futex(&word, FUTEX_WAIT_BITSET_PRIVATE | FUTEX_CLOCK_REALTIME, 5, past, NULL,
                          1));
    SHOW_VALUE(out, futex(&word, FUTEX_WAKE_PRIVATE, 1, 0, NULL, 0));
    SHOW_ERRNO(out, futex(&word, FUTEX_WAKE_BITSET_PRIVATE, 1, 0, NULL, 0));
    SHOW_VALUE(out, futex(&word, FUTEX_REQUEUE_PRIVATE, 1, 1, &other, 0));
    SHOW_ERRNO(out, futex(&word, FUTEX_CMP_REQUEUE_PRIVATE, 1, 1, &other, 4));
    SHOW_VALUE(out, futex(&word, FUTEX_CMP_REQUEUE_PRIVATE, 1, 1, &other, 5));
    int add = FUTEX_OP(FUTEX_OP_ADD, 3, FUTEX_OP_CMP_EQ, 9);
    SHOW_VALUE(out, futex(&word, FUTEX_WAKE_OP_PRIVATE, 1, 1, &other, (unsigned)add));
    SHOW_VALUE(out, other);
    int set = FUTEX_OP((FUTEX_OP_ANDN | FUTEX_OP_OPARG_SHIFT), 2, FUTEX_OP_CMP_LT, 0);
    SHOW_VALUE(out, futex(&word, FUTEX_WAKE_OP_PRIVATE, 1, 1, &other, (unsigned)set));
    SHOW_VALUE(out, other);
    unsigned *misaligned = (unsigned *)((char *)&word + 1);
    SHOW_ERRNO(out, futex(misaligned, FUTEX_WAKE_PRIVATE, 1, 0, NULL, 0));
    SHOW_ERRNO(out, futex(&word, 99, 1, 0, NULL, 0));
}

const struct behaviour behaviours[] = {
    {"mutexes", mutexes},
    {"robust", robust_mutexes},
    {"attributes", attributes},
    {"rwlocks", rwlocks},
    {"conditions", conditions},
    {"semaphores", semaphore_calls},
    {"barriers", barrier_calls},
    {"threads", thread_calls},
    {"cancellation", cancellation},
    {"priorities", priorities},
    {"futexes", futex_calls},
    {NULL, NULL},
};
