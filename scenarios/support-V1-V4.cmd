# V1, V4: the three newest minors that a stamp has are supported (aks); a year from its release (arc). It is 1 January 2026: neither date has come.
start
create c1 np1=1
settle
support c1 aks 0
support c1 arc 0

# 1.36 was released on 22 April 2026: a year later it is deprecated, sixty days before that is told. V2, V3: it works, and gets no updates.
support c1 arc 416
support c1 arc 475
support c1 arc 476
support c1 aks 476

# An upgrade brings it back.
upgrade c1 1.37.1
settle
support c1 arc 476
stop
