package subscribe

// Order is the order in which a node tries servers.
var Order = order
