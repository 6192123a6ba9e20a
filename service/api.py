"""Every router of the service: read here what exists."""

from fastapi import APIRouter

from service.features.cache.endpoints import router as cache
from service.features.files.endpoints import router as files
from service.features.files.endpoints import signed_router as signed_files
from service.features.health.endpoints import router as health
from service.features.jobs.endpoints import router as jobs
from service.features.live.endpoints import router as live
from service.features.transactions.endpoints import router as transactions

API_ROUTERS: tuple[APIRouter, ...] = (health, transactions, live, files, signed_files, cache, jobs)
OPERATIONS_ROUTERS: tuple[APIRouter, ...] = (health,)
"""What a worker or a scheduler serves on its own port."""
