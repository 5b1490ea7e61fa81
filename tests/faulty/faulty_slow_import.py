"""A backend whose import never ends."""

import time

time.sleep(10**6)
