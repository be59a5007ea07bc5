/* What the torture server's scenarios share.
 *
 * A scenario is one function that makes threads or processes, has them work on each other, and waits
 * for all of them. What it reports is of two kinds: *same* is a function of the seed alone, however
 * the threads were scheduled, so that a native run gives it too; *order* tells who came when, and only
 * replicas of one run can be asked to agree on it. */
#ifndef TORTURE_H
#define TORTURE_H

#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

enum { EVENTS_MAX = 16384 };

struct run {
    uint64_t seed;
    unsigned count; /* how much work, about operations of each thread */
    uint64_t same;
    atomic_uint events;
    _Atomic uint64_t event[EVENTS_MAX];
    _Atomic(const char *) failure;
    pthread_mutex_t noting; /* events, see event() */
};

struct scenario {
    const char *name;
    void (*run)(struct run *);
};

/* Tables that end with a null name. */
extern const struct scenario lock_scenarios[];
extern const struct scenario wait_scenarios[];
extern const struct scenario thread_scenarios[];
extern const struct scenario process_scenarios[];
extern const struct scenario c11_scenarios[];
extern const struct scenario raw_scenarios[];
extern const struct scenario end_scenarios[];

struct behaviour {
    const char *name;
    void (*trace)(FILE *);
};
extern const struct behaviour behaviours[];

/* Memory for the answer of one scenario, shared with the children that it forks. */
struct run *run_new(uint64_t seed, unsigned count);
void run_free(struct run *);

/* Something that anybody's scheduling may change happened now. */
void event(struct run *, uint64_t value);
uint64_t order_of(struct run *);

/* Folds a value that is the same under every schedule into the answer. Not for several threads. */
void same(struct run *, uint64_t value);
void failed(struct run *, const char *what);

#define STRING_(x) #x
#define STRING(x) STRING_(x)
#define CHECK(run, condition)                                                        \
    do {                                                                             \
        if (!(condition))                                                            \
            failed((run), __FILE__ ":" STRING(__LINE__) ": " #condition);            \
    } while (0)

/* SplitMix64. */
struct chance {
    uint64_t state;
};
struct chance chance_for(uint64_t seed, uint64_t stream);
uint64_t chance_next(struct chance *);
unsigned below(struct chance *, unsigned end);
uint64_t mixed(uint64_t value);

/* Now and then lets others go first, in one of several ways. */
void dawdle(struct chance *);

/* `ns` from now. */
struct timespec after(clockid_t clock, long ns);
bool not_before(clockid_t clock, struct timespec moment);

/* Starts `many` threads on an array of things of `size` bytes each, and waits for all. */
enum { TEAM_MAX = 16 };
void team(struct run *, unsigned many, void *(*start)(void *), void *members, size_t size);

#endif
