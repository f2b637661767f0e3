"""How it is operated: the balancer is wired here, reloaded here and stopped here."""
