"""Every router of the service: read here what exists."""

from fastapi import APIRouter

from service.features.health.endpoints import router as health
from service.features.transactions.endpoints import router as transactions

API_ROUTERS: tuple[APIRouter, ...] = (health, transactions)
OPERATIONS_ROUTERS: tuple[APIRouter, ...] = (health,)
"""What a worker serves on its own port."""
