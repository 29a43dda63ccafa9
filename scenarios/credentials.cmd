# Credentials: granted within the answer, taken back within the answer, whatever becomes of the service meanwhile.
start
create c1 np1=1
# Before there is an API, it is handed out and follows.
wait 0.1
credential c1 Admin
credentials c1
settle
credentials c1
trace
credential c1 User
credential c1 MonitoringUser
credentials c1
revoke c1
credentials c1
trace
# While the cluster does not answer, what is asked for waits for it.
stall c1
wait 5
credential c1 Admin
revoke c1
credentials c1
unstall c1
settle
credentials c1
# The service dies with what it was about to do.
fail replace 2
credential c1 User
kill
start
settle
credentials c1
# What goes back in time is set right.
wait 100
restore c1 60
settle
credentials c1
# A stopped cluster hands out what works when it is back.
power c1 off
settle
credential c1 Admin
credentials c1
power c1 on
settle
credentials c1
# They end by themselves, and are forgotten.
wait 28800
wait 600
credentials c1
settle
delete c1
settle
