# An upgrade that a channel asks for waits for its window, and begins at the cluster's own minute of it. It is Thursday, midnight.
start
create c1 np1=2
settle
window c1 aksManagedAutoUpgradeSchedule Thursday 01:00 4
channel c1 rapid
settle
waits c1
show c1
wait 3000
waits c1
show c1
wait 3000
upgraded c1 1.37.1
settle
waits c1
show c1
operations

# An operator holds it up, also over a restart; then it goes on at once, for the window is open.
create c2 np1=1
settle
hold freeze
window c2 aksManagedAutoUpgradeSchedule Thursday 02:00 8
channel c2 rapid
wait 7200
waits c2
stop
start
wait 60
waits c2
go-on
wait 60
upgraded c2 1.37.1
settle

# One that is stopped is upgraded after it was started; one that was made in the course of the window, too.
create c3 np1=1
settle
power c3 off
settle
window c3 aksManagedAutoUpgradeSchedule Thursday 02:00 8
channel c3 rapid
power c3 on
settle
channel c3 rapid
wait 60
upgraded c3 1.37.1
settle

# The service dies at the minute at which it was to ask for it.
create c4 np1=1
settle
window c4 aksManagedAutoUpgradeSchedule Friday 00:00 4
channel c4 rapid
settle
kill
wait 75000
start
wait 60
waits c4
upgraded c4 1.37.1
settle
show c4
stop
