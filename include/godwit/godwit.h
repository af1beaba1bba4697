/* Everything. */
#ifndef GODWIT_GODWIT_H
#define GODWIT_GODWIT_H

#include <godwit/api.h>
#include <godwit/devices.h>
#include <godwit/error.h>
#include <godwit/guest.h>
#include <godwit/info.h>
#include <godwit/migration.h>
#include <godwit/options.h>
#include <godwit/pki.h>
#include <godwit/tracker.h>

#endif
