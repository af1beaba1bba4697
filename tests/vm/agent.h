/*
 * What the host and the machine say to each other over the control port: frames of a head and a payload, both
 * directions. Host and machine are of one architecture, so the head is as the compiler lays it out (12 bytes). agent.py
 * is the other end.
 *
 *   to the machine     AGENT_SPAWN   payload: texts that each end in a zero byte: directory, user id, bytes of
 *                                    memory that may be locked (both may be empty: as root, as the kernel has it),
 *                                    number of arguments, the arguments, and then the environment
 *                      AGENT_SIGNAL  payload: the number, one byte; and one byte, 1 for the whole process group
 *                      AGENT_QUIT    no payload: end everything, write everything back, power off
 *   to the host        AGENT_READY   no payload, and of job 0
 *                      AGENT_OUT, AGENT_ERR   payload: what a job wrote
 *                      AGENT_EXIT    payload: its status as of wait(), 4 bytes. The last frame of a job
 *
 * A job is a number that the host chooses and does not use again.
 */
#ifndef TESTS_VM_AGENT_H
#define TESTS_VM_AGENT_H

#include <stdint.h>

enum agent_kind {
    AGENT_SPAWN = 'S',
    AGENT_SIGNAL = 'K',
    AGENT_QUIT = 'Q',
    AGENT_READY = 'R',
    AGENT_OUT = 'O',
    AGENT_ERR = 'E',
    AGENT_EXIT = 'X',
};

struct agent_head {
    uint32_t kind; /* enum agent_kind */
    uint32_t job;
    uint32_t length; /* of the payload, bytes */
};

/* Serves the control port until it is told to quit or the host is gone. Only for PID 1: it reaps whatever ends. */
void agent_serve(int port);

#endif
