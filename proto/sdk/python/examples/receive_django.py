"""Receives deliveries with Django, here in a single file. Run: WEBHOOK_SECRET=whsec_… python receive_django.py"""

import os
from wsgiref.simple_server import make_server

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from fanfare_sdk import ReceivedEvent, SignatureError, verify

settings.configure(ALLOWED_HOSTS=["127.0.0.1"], ROOT_URLCONF=__name__)
django.setup()
secret = os.environ["WEBHOOK_SECRET"]

# A real receiver keeps the events in its database, unique by id: Fanfare may send an event twice.
events: dict[str, ReceivedEvent] = {}


@csrf_exempt
@require_POST
def receive(request: HttpRequest) -> HttpResponse:
    try:
        event = verify(request.body, request.headers, secret, dialect="incenta")
    except SignatureError as error:
        return HttpResponse(str(error), status=400, content_type="text/plain")
    events.setdefault(event.id, event)
    return HttpResponse(status=204)


urlpatterns = [path("hooks", receive)]

if __name__ == "__main__":
    make_server("127.0.0.1", 9000, get_wsgi_application()).serve_forever()
