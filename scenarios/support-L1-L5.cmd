# L1: a stopped cluster is kept for twelve months of the calendar, from its stop on; sixty days before the end that is a warning (aks).
start
create c1 np1=1
settle
wait 3600
power c1 off
settle
support c1 aks 0
support c1 aks 305
support c1 aks 365

# L5: on hosts of one's own it leaves support after 30 days; 60 days (hci): not to the latest version; 90 days: no update.
support c1 arc 29
support c1 arc 30
support c1 hci 61
support c1 hci 91

# It runs again: nothing is left of it.
power c1 on
settle
support c1 aks 0
support c1 hci 91
stop
