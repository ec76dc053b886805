"""Queue, gather, reconcile, status: the only place that joins the other layers."""
