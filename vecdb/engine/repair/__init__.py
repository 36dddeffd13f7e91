"""Repair: rebuilds what can be derived, puts what is damaged into quarantine, and says exactly what is lost."""

from vecdb.engine.repair.database import DatabaseRepair, repair_database
from vecdb.engine.repair.report import Action, Loss, RepairReport

__all__ = ["Action", "DatabaseRepair", "Loss", "RepairReport", "repair_database"]
